// Brings one file into the store: refers to content that is there already, sends what is short, and resumes what is long.

const TUS = {"Tus-Resumable": "1.0.0"};
const PATIENCE = [1, 2, 4, 8, 16]; // seconds between attempts
const LONGEST_WAIT = 60;
const TAKEN = "precondition-failed";
const PASSING = new Set([0, 423, 429, 502, 503, 504]);
const REMEMBERED = "blobstore-upload:";
const WAS_STORED = "Blobstore-Was-Stored"; // told to those who may know
const KEPT = 7 * 24 * 3600 * 1000; // milliseconds for which an upload that was broken off is spoken of

/** An error: `status` is that of the answer, 0 without one; `code` is that of the server, or one of ours. */
export class Problem extends Error {
    constructor(status, code, detail = "", wait = 0) {
        super(detail);
        this.status = status;
        this.code = code;
        this.wait = wait;
    }
}

/** Send one request. Resolves to {status, header(name), json}; rejects with a Problem, or an AbortError. */
export function ask(method, url, {body = null, headers = {}, signal, onProgress} = {}) {
    return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open(method, url);
        for (const [name, value] of Object.entries({Accept: "application/json", ...headers})) {
            request.setRequestHeader(name, value);
        }
        request.upload.addEventListener("progress", (event) => onProgress?.(event.loaded));
        request.addEventListener("load", () => (request.status < 400 ? resolve(answer(request)) : reject(problem(request))));
        request.addEventListener("error", () => reject(new Problem(0, "unreachable")));
        request.addEventListener("abort", () => reject(aborted()));
        signal?.addEventListener("abort", () => request.abort());
        if (signal?.aborted) {
            reject(aborted());
        } else {
            request.send(body);
        }
    });
}

function answer(request) {
    const isJSON = /json/.test(request.getResponseHeader("Content-Type") ?? "");
    return {
        status: request.status,
        header: (name) => request.getResponseHeader(name),
        json: isJSON && request.responseText ? JSON.parse(request.responseText) : null,
    };
}

function problem(request) {
    let told = {};
    try {
        told = JSON.parse(request.responseText);
    } catch {
        // A proxy answered, or the server had no time to.
    }
    const wait = Number(request.getResponseHeader("Retry-After")) || 0;
    return new Problem(request.status, told.code ?? `status-${request.status}`, told.detail, wait);
}

function aborted() {
    return new DOMException("It was cancelled.", "AbortError");
}

/** Hashing and proving off the page, or on it where a worker is refused (say, if static files are on another host). */
export class Hashing {
    #url;
    #worker = null;
    #waiting = new Map();
    #number = 0;

    constructor(url) {
        this.#url = url;
        try {
            this.#worker = new Worker(url, {type: "module"});
            this.#worker.addEventListener("message", ({data}) => this.#settle(data));
            this.#worker.addEventListener("error", () => this.#goOnHere());
        } catch {
            this.#worker = null;
        }
    }

    run(task, ...args) {
        if (!this.#worker) {
            return import(this.#url)
                .then((module) => module[task](...args))
                .catch((error) => Promise.reject(unusable(error.name)));
        }
        const number = ++this.#number;
        return new Promise((resolve, reject) => {
            this.#waiting.set(number, {task, args, resolve, reject});
            this.#worker.postMessage({number, task, args});
        });
    }

    #settle({number, value, error}) {
        const {resolve, reject} = this.#waiting.get(number);
        this.#waiting.delete(number);
        if (error) {
            reject(unusable(error));
        } else {
            resolve(value);
        }
    }

    #goOnHere() {
        this.#worker = null;
        for (const {task, args, resolve, reject} of this.#waiting.values()) {
            this.run(task, ...args).then(resolve, reject);
        }
        this.#waiting.clear();
    }
}

function unusable(name) {
    return new Problem(-1, ["NotReadableError", "NotFoundError"].includes(name) ? "unreadable" : name);
}

/** What this browser knows of uploads to one place that were broken off, by what they were of. */
export class Remembered {
    constructor(place) {
        this.prefix = `${REMEMBERED}${place}:`;
    }

    key({path, file}) {
        return `${this.prefix}${file.size}:${file.lastModified}:${path}`;
    }

    get(item) {
        return JSON.parse(localStorage.getItem(this.key(item)) ?? "null");
    }

    set(item, url, sent) {
        const known = {url, sent, path: item.path, size: item.file.size, at: Date.now()};
        try {
            localStorage.setItem(this.key(item), JSON.stringify(known));
        } catch {
            // There is no room: it cannot be resumed after a reload, but goes on.
        }
    }

    remove(key) {
        localStorage.removeItem(key);
    }

    /** Return [key, {url, sent, path, size}] of each, and forget those that are too old. */
    list() {
        const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix));
        const entries = keys.map((key) => [key, JSON.parse(localStorage.getItem(key))]);
        entries.filter(([, {at}]) => Date.now() - at > KEPT).forEach(([key]) => this.remove(key));
        return entries.filter(([, {at}]) => Date.now() - at <= KEPT);
    }
}

/**
 * Puts files into one place. An item is {path, file, replaces}: `replaces` says that an object may be at the path. While
 * one is under way, `onPhase` is told "comparing", "linking" or "sending", and `onProgress` how many bytes have gone.
 */
export class Sender {
    constructor(urls, target, token, hashing, {long, piece}) {
        Object.assign(this, {urls, target, token, hashing, long, piece});
        this.remembered = new Remembered(urls.objects);
    }

    /** Bring `item` into the store. Resolves to "linked", "replaced" or "stored". */
    async send(item, hooks) {
        if (item.file.size >= this.long) {
            return this.#resume(item, hooks);
        }
        const sha384 = this.hashing ? await this.#hash(item, hooks) : "";
        try {
            if (sha384 && (await this.#claim(item, sha384, hooks))) {
                return "linked";
            }
        } finally {
            this.hashing?.run("forget", item.path);
        }
        return this.#put(item, sha384, hooks);
    }

    /** Tell the server that an upload that was broken off will not be gone on with. */
    async giveUp(key, url) {
        this.remembered.remove(key);
        await ask("DELETE", url, {headers: {...this.#csrf, ...TUS}}).catch(() => {}); // then it expires
    }

    get #csrf() {
        return {"X-CSRFToken": this.token};
    }

    /** Let no request take the place of an object that the person was not asked about. */
    #condition({replaces}) {
        return replaces ? {} : {"If-None-Match": "*"};
    }

    #post(item, url, said, signal) {
        const headers = {...this.#csrf, ...this.#condition(item), "Content-Type": "application/json"};
        return ask("POST", url, {body: JSON.stringify(said), headers, signal});
    }

    async #hash({path, file}, {onPhase, signal}) {
        onPhase("comparing");
        const sha384 = await this.hashing.run("hash", path, file);
        signal.throwIfAborted();
        return sha384;
    }

    /** Say whether the store had the content and now refers to it at the path. */
    async #claim(item, sha384, {onPhase, signal}) {
        const {path, file} = item;
        try {
            const wanted = {path, sha384, content_type: file.type};
            const {status, json, header} = await this.#post(item, this.urls.putRequests, wanted, signal);
            if (status === 204) {
                return false;
            }
            onPhase("linking");
            const proof = await this.hashing.run("prove", path, file, sha384, json);
            await this.#post(item, here(header("Location")), {proof}, signal);
            return true;
        } catch (error) {
            // Whatever else is wrong with linking, the file can be sent; what is wrong with that too is told then.
            if (error instanceof Problem && error.code !== TAKEN) {
                return false;
            }
            throw error;
        }
    }

    async #put(item, sha384, hooks) {
        const type = item.file.type || "application/octet-stream";
        const headers = {...this.#csrf, ...this.#condition(item), "Content-Type": type};
        if (sha384) {
            headers["X-Content-SHA384"] = sha384;
        }
        hooks.onPhase("sending");
        const url = this.urls.objects + item.path.split("/").map(encodeURIComponent).join("/");
        const {status, header} = await patiently(hooks, () => ask("PUT", url, {body: item.file, headers, ...hooks}));
        return header(WAS_STORED) ? "linked" : status === 200 ? "replaced" : "stored";
    }

    async #resume(item, hooks) {
        hooks.onPhase("sending");
        const key = this.remembered.key(item);
        let url = this.remembered.get(item)?.url;
        let offset = url ? await patiently(hooks, () => this.#offset(url, hooks)) : null;
        if (offset === null) {
            url = await patiently(hooks, () => this.#begin(item, hooks));
            offset = 0;
        }
        let wasStored = false;
        try {
            while (offset < item.file.size) {
                this.remembered.set(item, url, offset);
                hooks.onProgress(offset);
                [offset, wasStored] = await this.#append(item, url, offset, hooks);
            }
        } catch (error) {
            if (error.name === "AbortError") {
                await this.giveUp(key, url);
            }
            throw error;
        }
        this.remembered.remove(key);
        return wasStored ? "linked" : item.replaces ? "replaced" : "stored";
    }

    async #begin(item, {signal}) {
        const {path, file} = item;
        const said = {...this.target, path, ...(file.type && {content_type: file.type})};
        const metadata = Object.entries(said).map(([name, value]) => `${name} ${base64(value)}`).join(",");
        const length = {"Upload-Length": String(file.size), "Upload-Metadata": metadata};
        const headers = {...this.#csrf, ...TUS, ...this.#condition(item), ...length};
        const {header} = await ask("POST", this.urls.uploads, {headers, signal});
        return here(header("Location"));
    }

    /** Return how many bytes the server has; null if it knows nothing of the upload any more. */
    async #offset(url, {signal}) {
        try {
            return Number((await ask("HEAD", url, {headers: TUS, signal})).header("Upload-Offset"));
        } catch (error) {
            if ([404, 410].includes(error.status)) {
                return null;
            }
            throw error;
        }
    }

    /**
     * Send the next piece. Return how far the server is, and whether it says that it had the content; what broke off is
     * asked for first.
     */
    async #append(item, url, offset, hooks) {
        const {file} = item;
        const type = "application/offset+octet-stream";
        let at = offset;
        return patiently(hooks, async (attempt) => {
            if (attempt) {
                at = await this.#offset(url, hooks);
                if (at === null) {
                    throw new Problem(404, "upload-lost");
                }
                if (at === file.size) {
                    return [at, false];
                }
            }
            const place = {"Upload-Offset": String(at), "Content-Type": type};
            const headers = {...this.#csrf, ...TUS, ...this.#condition(item), ...place};
            const body = file.slice(at, at + this.piece);
            const onProgress = (sent) => hooks.onProgress(at + sent);
            const {header} = await ask("PATCH", url, {body, headers, signal: hooks.signal, onProgress});
            return [Number(header("Upload-Offset")), Boolean(header(WAS_STORED))];
        });
    }
}

/** Call `attempt` until it succeeds, fails for good, or has failed too often. */
async function patiently({signal, onPhase}, attempt) {
    for (let failed = 0; ; failed++) {
        try {
            return await attempt(failed);
        } catch (error) {
            const again = error instanceof Problem && (PASSING.has(error.status) || error.code === "offset-mismatch");
            if (!again || failed === PATIENCE.length || error.wait > LONGEST_WAIT) {
                throw error;
            }
            onPhase("retrying");
            await pause(Math.max(PATIENCE[failed], error.wait), signal);
            onPhase("sending");
        }
    }
}

function pause(seconds, signal) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, seconds * 1000);
        signal.addEventListener("abort", () => {
            clearTimeout(timer);
            reject(aborted());
        });
    });
}

/** Return `url` without its host, by which a proxy may know us otherwise. */
function here(url) {
    return new URL(url, document.baseURI).pathname;
}

function base64(text) {
    return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

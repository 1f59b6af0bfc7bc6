// The panel through which files and folders get into a place: what was chosen, how far it is, and what came of it.

const AT_ONCE = 3;
const ASKED_AT_ONCE = 1000; // paths in one request
const SHOWN_AS_DONE = 100; // rows; those of errors all stay
const SPOKEN_EVERY = 5000; // milliseconds between what a screen reader is told
const NAMED_IN_QUESTION = 8;

const panel = document.querySelector("[data-blobstore-upload]");
const texts = JSON.parse(document.getElementById("blobstore-upload-texts").textContent);
const {Hashing, Sender, ask} = await import(panel.dataset.sending);
const part = (name) => panel.querySelector(`[data-part="${name}"]`);

const numbers = new Intl.NumberFormat(document.documentElement.lang || undefined);
const UNITS = ["byte", "kilobyte", "megabyte", "gigabyte", "terabyte"];

function say(name, values = {}) {
    return texts[name].replace(/%\((\w+)\)s/g, (_, key) => values[key]);
}

function human(bytes) {
    const power = bytes < 1024 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), UNITS.length - 1);
    const style = {style: "unit", unit: UNITS[power], unitDisplay: power ? "short" : "long", maximumFractionDigits: power ? 1 : 0};
    return new Intl.NumberFormat(document.documentElement.lang || undefined, style).format(bytes / 1024 ** power);
}

/** One file on its way: its row, once it has one, and how far it is. */
class Item {
    constructor(file, path, replaces = false) {
        Object.assign(this, {file, path, replaces, sent: 0, state: "waiting", row: null});
    }

    get isOver() {
        return ["linked", "replaced", "stored", "skipped", "failed", "cancelled"].includes(this.state);
    }

    /** Show the file, above those that are done. */
    show(onCancel, onRetry) {
        if (!this.row) {
            this.row = part("row").content.firstElementChild.cloneNode(true);
            this.cell("name").textContent = this.path;
            this.cell("size").textContent = human(this.file.size);
            this.cell("cancel").addEventListener("click", onCancel);
            this.cell("cancel").setAttribute("aria-label", say("cancelOne", {path: this.path}));
            this.cell("retry").addEventListener("click", onRetry);
            this.cell("retry").setAttribute("aria-label", say("retryOne", {path: this.path}));
            this.cell("bar").setAttribute("aria-label", this.path);
        }
        part("rows").prepend(this.row);
    }

    cell(name) {
        return this.row.querySelector(`[data-cell="${name}"]`);
    }

    become(state, told = texts[state]) {
        this.state = state;
        if (!this.row) {
            return;
        }
        this.row.dataset.state = state;
        this.cell("state").textContent = told;
        this.cell("cancel").hidden = this.isOver;
        this.cell("bar").hidden = this.isOver;
        this.cell("retry").hidden = !["failed", "cancelled"].includes(state);
    }

    progress(sent) {
        this.sent = sent;
        const bar = this.cell("bar");
        bar.max = this.file.size || 1;
        bar.value = sent;
    }
}

/** Everything that was chosen since the page was opened. */
class Batch {
    constructor(sender) {
        this.sender = sender;
        this.items = [];
        this.controllers = new Map();
        this.spokenAt = 0;
    }

    add(items) {
        this.items.push(...items);
        part("batch").hidden = false;
        this.update();
        this.goOn();
    }

    get isOver() {
        return this.items.every((item) => item.isOver);
    }

    goOn() {
        for (const item of this.items) {
            if (this.controllers.size >= AT_ONCE) {
                return;
            }
            if (item.state === "waiting") {
                this.run(item);
            }
        }
    }

    async run(item) {
        const controller = new AbortController();
        this.controllers.set(item, controller);
        item.sent = 0;
        item.show(() => this.cancel(item), () => this.retry(item));
        const hooks = {
            signal: controller.signal,
            onPhase: (phase) => item.become(phase),
            onProgress: (sent) => {
                item.progress(sent);
                this.update();
            },
        };
        item.become("comparing");
        try {
            item.become(await this.sender.send(item, hooks));
        } catch (error) {
            this.fail(item, error);
        }
        item.sent = 0;
        this.controllers.delete(item);
        this.drop();
        this.update();
        this.goOn();
    }

    fail(item, error) {
        if (error.name === "AbortError") {
            item.become("cancelled");
            return;
        }
        const code = error instanceof URIError ? "invalid-path" : error.code;
        item.become("failed", texts.problems[code] ?? say("failedWith", {detail: error.message || String(code)}));
    }

    cancel(item) {
        this.controllers.get(item)?.abort();
        if (item.state === "waiting") {
            item.become("cancelled");
        }
        this.update();
    }

    cancelAll() {
        this.items.filter((item) => item.state === "waiting").forEach((item) => item.become("cancelled"));
        this.controllers.forEach((controller) => controller.abort());
        this.update();
    }

    retry(item) {
        item.become("waiting");
        this.update();
        this.goOn();
    }

    retryAll() {
        this.items.filter((item) => item.state === "failed").forEach((item) => item.become("waiting"));
        this.update();
        this.goOn();
    }

    /** Take away the oldest rows of files that went well, of which there may be many thousands. */
    drop() {
        const done = part("rows").querySelectorAll(":is([data-state=stored], [data-state=linked], [data-state=replaced])");
        [...done].slice(SHOWN_AS_DONE).forEach((row) => row.remove());
    }

    count(...states) {
        return this.items.filter((item) => states.includes(item.state)).length;
    }

    update() {
        const all = this.items.reduce((sum, item) => sum + item.file.size, 0);
        const gone = this.items.reduce((sum, item) => sum + (item.isOver ? item.file.size : item.sent), 0);
        // Empty files count too.
        part("progress").max = all + this.items.length;
        part("progress").value = gone + this.items.filter((item) => item.isOver).length;
        const over = this.isOver;
        const told = over ? this.outcome() : this.standing(gone, all);
        part("summary").textContent = told;
        part("cancel").hidden = part("progress").hidden = over;
        part("retry").hidden = !over || !this.count("failed");
        part("reload").hidden = !over || !this.count("stored", "linked", "replaced");
        panel.dataset.state = over ? "over" : "busy";
        if (over || Date.now() - this.spokenAt > SPOKEN_EVERY) {
            part("spoken").textContent = told;
            this.spokenAt = Date.now();
        }
    }

    standing(gone, all) {
        const done = numbers.format(this.items.filter((item) => item.isOver).length);
        const failed = this.count("failed");
        const told = say("standing", {done, total: numbers.format(this.items.length), gone: human(gone), all: human(all)});
        return failed ? `${told} · ${say("outcome.failed", {count: numbers.format(failed)})}` : told;
    }

    outcome() {
        const counted = ["stored", "replaced", "linked", "skipped", "cancelled", "failed"]
            .map((state) => [state, this.count(state)])
            .filter(([, count]) => count)
            .map(([state, count]) => say(`outcome.${state}`, {count: numbers.format(count)}));
        return say("over", {outcome: counted.join(" · ")});
    }
}

/** Yield {file, path} of everything that was dropped, folders with all that is in them. */
async function* dropped(entries, files) {
    for (const [index, entry] of entries.entries()) {
        if (entry) {
            yield* within(entry, "");
        } else if (files[index]) {
            yield {file: files[index], path: files[index].name};
        }
    }
}

async function* within(entry, folder) {
    const path = folder + entry.name;
    if (entry.isFile) {
        yield {file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path};
        return;
    }
    const reader = entry.createReader();
    let some;
    do {
        // It gives a hundred at a time.
        some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        for (const child of some) {
            yield* within(child, `${path}/`);
        }
    } while (some.length);
}

/** Ask once for all files whether to replace what is there; resolves to "replace", "skip" or "" for none of it. */
function question(taken) {
    const dialog = part("question");
    part("taken").replaceChildren(
        ...taken.slice(0, NAMED_IN_QUESTION).map((path) => Object.assign(document.createElement("li"), {textContent: path})),
    );
    const more = taken.length - NAMED_IN_QUESTION;
    part("more").textContent = more > 0 ? say("more", {count: numbers.format(more)}) : "";
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), {once: true}));
}

class Panel {
    constructor() {
        const {folder, objects, putRequests, taken, uploads, hashing} = panel.dataset;
        this.folder = folder;
        this.urls = {objects, putRequests, taken, uploads};
        this.token = panel.querySelector("[name=csrfmiddlewaretoken]").value;
        const target = JSON.parse(panel.dataset.target);
        // Browsers hash on secure pages only.
        this.isSecure = Boolean(window.crypto?.subtle);
        const sizes = {long: Number(panel.dataset.long), piece: Number(panel.dataset.piece)};
        this.sender = new Sender(this.urls, target, this.token, this.isSecure ? new Hashing(hashing) : null, sizes);
        this.batch = new Batch(this.sender);
        part("insecure").hidden = this.isSecure;
        this.listen();
        this.showInterrupted();
        panel.hidden = false;
        panel.dataset.state = "ready";
    }

    listen() {
        for (const input of panel.querySelectorAll("input[type=file]")) {
            part(`choose-${input.dataset.part}`).addEventListener("click", () => input.click());
            input.addEventListener("change", () => {
                this.take([...input.files].map((file) => ({file, path: file.webkitRelativePath || file.name})));
                input.value = ""; // so that the same can be chosen again
            });
        }
        part("cancel").addEventListener("click", () => this.batch.cancelAll());
        part("retry").addEventListener("click", () => this.batch.retryAll());
        window.addEventListener("beforeunload", (event) => this.batch.isOver || event.preventDefault());
        this.listenToDrops();
    }

    listenToDrops() {
        const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
        const mark = (event, isOver) => {
            if (hasFiles(event)) {
                event.preventDefault(); // or the browser would open the file
                panel.classList.toggle("blobstore-upload-over", isOver);
            }
        };
        document.addEventListener("dragover", (event) => mark(event, true));
        document.addEventListener("dragleave", (event) => event.relatedTarget || mark(event, false));
        document.addEventListener("drop", (event) => {
            mark(event, false);
            if (hasFiles(event)) {
                // Both are gone once this function returns.
                const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
                this.takeDropped(entries, [...event.dataTransfer.files]);
            }
        });
    }

    async takeDropped(entries, files) {
        const found = [];
        try {
            for await (const one of dropped(entries, files)) {
                found.push(one);
                part("spoken").textContent = part("notice").textContent = say("looking", {count: numbers.format(found.length)});
            }
            part("notice").textContent = "";
            await this.take(found);
        } catch (error) {
            part("spoken").textContent = part("notice").textContent = say("unreadableFolder", {detail: error.message});
        }
    }

    async take(chosen) {
        const items = chosen.map(({file, path}) => new Item(file, this.folder + path));
        if (!items.length) {
            part("notice").textContent = texts.nothing;
            return;
        }
        part("notice").textContent = "";
        try {
            await this.decide(items);
        } catch (error) {
            part("spoken").textContent = part("notice").textContent =
                texts.problems[error.code] ?? say("failedWith", {detail: error.message});
        }
    }

    /** Begin with `items`, once it is known what to do with those whose paths are taken. */
    async decide(items) {
        // Names that no text can have would spoil the question for all.
        const taken = await this.taken(items.map((item) => item.path).filter((path) => path.isWellFormed?.() ?? true));
        const choice = taken.size ? await question([...taken]) : "replace";
        if (!choice) {
            return;
        }
        for (const item of items.filter(({path}) => taken.has(path))) {
            item.replaces = true;
            if (choice === "skip") {
                item.state = "skipped";
            }
        }
        this.batch.add(items);
        part("interrupted").hidden = true;
    }

    async taken(paths) {
        const taken = new Set();
        const headers = {"X-CSRFToken": this.token, "Content-Type": "application/json"};
        for (let at = 0; at < paths.length; at += ASKED_AT_ONCE) {
            const body = JSON.stringify({paths: paths.slice(at, at + ASKED_AT_ONCE)});
            const {json} = await ask("POST", this.urls.taken, {body, headers});
            json.taken.forEach((path) => taken.add(path));
        }
        return taken;
    }

    showInterrupted() {
        const known = this.sender.remembered.list();
        part("interrupted").hidden = !known.length;
        part("interrupted-rows").replaceChildren(...known.map(([key, entry]) => this.interrupted(key, entry)));
    }

    interrupted(key, {url, path, size, sent}) {
        const row = part("interrupted-row").content.firstElementChild.cloneNode(true);
        row.querySelector("[data-cell=name]").textContent = path;
        row.querySelector("[data-cell=state]").textContent = say("sentOf", {sent: human(sent), size: human(size)});
        const button = row.querySelector("button");
        button.setAttribute("aria-label", say("giveUpOne", {path}));
        button.addEventListener("click", async () => {
            await this.sender.giveUp(key, url);
            this.showInterrupted();
        });
        return row;
    }
}

new Panel();

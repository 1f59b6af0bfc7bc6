// Hashes files and proves to hold them: in a worker of its own, or on the page where there can be none.

// What a proof asks for of longer contents is so little that it is read from the file again.
const HELD_UP_TO = 64 * 1024 * 1024;
const PROTOCOL = "blobstore-poa-v2\0";

const held = new Map();

/** Hash `file`, reading it once, and keep a short one for the proof until `forget(key)`. Returns hex. */
export async function hash(key, file) {
    const bytes = await file.arrayBuffer();
    if (bytes.byteLength <= HELD_UP_TO) {
        held.set(key, bytes);
    }
    return hex(await crypto.subtle.digest("SHA-384", bytes));
}

/** Answer `challenge`, which is about `file` with the SHA-384 `sha384` (hex). Returns hex. */
export async function prove(key, file, sha384, challenge) {
    const source = held.get(key) ?? file;
    if (challenge.algorithm === "sha384") {
        return hex(await crypto.subtle.digest("SHA-384", await read(source, ...challenge.ranges[0])));
    }
    const hmac = {name: "HMAC", hash: "SHA-384"};
    const nonce = Uint8Array.from(atob(challenge.nonce), (character) => character.charCodeAt(0));
    const signing = await crypto.subtle.importKey("raw", nonce, hmac, false, ["sign"]);
    return hex(await crypto.subtle.sign("HMAC", signing, await answered(source, file.size, sha384, challenge)));
}

export function forget(key) {
    held.delete(key);
}

/** Return what the proof signs: what was asked, and after the place of each range its bytes. */
async function answered(source, size, sha384, {request_id: id, ranges}) {
    const begins = new TextEncoder().encode(`${PROTOCOL}${id}\0`);
    const content = Uint8Array.from(sha384.match(/../g), (byte) => parseInt(byte, 16));
    const parts = [begins, content, numbers([size], 8), numbers([ranges.length], 4)];
    for (const range of ranges) {
        parts.push(numbers(range, 8), await read(source, ...range));
    }
    return joined(parts);
}

async function read(source, start, length) {
    if (source instanceof ArrayBuffer) {
        return new Uint8Array(source, start, length);
    }
    return new Uint8Array(await source.slice(start, start + length).arrayBuffer());
}

function numbers(values, width) {
    const view = new DataView(new ArrayBuffer(values.length * width));
    values.forEach((value, index) => {
        view.setUint32(index * width + width - 4, value % 2 ** 32);
        if (width === 8) {
            view.setUint32(index * width, Math.floor(value / 2 ** 32));
        }
    });
    return new Uint8Array(view.buffer);
}

function joined(parts) {
    const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
    let at = 0;
    for (const part of parts) {
        all.set(part, at);
        at += part.length;
    }
    return all;
}

function hex(buffer) {
    return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
    const tasks = {hash, prove, forget};
    let last = Promise.resolve();
    self.addEventListener("message", ({data: {number, task, args}}) => {
        // One after the other: several long files at once would need too much memory.
        last = last
            .then(() => tasks[task](...args))
            .then((value) => self.postMessage({number, value}))
            .catch((error) => self.postMessage({number, error: error.name}));
    });
}

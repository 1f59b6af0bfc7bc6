// Uploads a file with a client of other people: node upload.mjs CLIENT FILE OPTIONS, where OPTIONS is JSON for the client.
// The last line it prints is JSON: what came of it. An option "abortAt" ends the upload for good after so many bytes.

import { createReadStream, readFileSync } from "node:fs";
import { PassThrough } from "node:stream";
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";
import { Upload } from "tus-js-client";

const [client, file, text] = process.argv.slice(2);
const { abortAt, asStream, ...options } = JSON.parse(text);

function withTus() {
    return new Promise((resolve, reject) => {
        // Behind a pipe: of a plain file tus-js-client announces too many bytes at its end, if its length is deferred.
        const source = asStream ? createReadStream(file).pipe(new PassThrough()) : readFileSync(file);
        const upload = new Upload(source, {
            ...options,
            onError: reject,
            onSuccess: () => resolve({ url: upload.url }),
            onChunkComplete: (_, accepted) => {
                if (abortAt && accepted >= abortAt) {
                    upload.abort(true).then(() => resolve({ url: upload.url, aborted: true }), reject);
                }
            },
        });
        upload.start();
    });
}

async function withUppy() {
    const uppy = new Uppy({ autoProceed: false });
    uppy.use(Tus, options);
    const data = readFileSync(file);
    uppy.addFile({ name: "uppy.bin", type: "application/octet-stream", data, meta: options.metadata });
    if (abortAt) {
        uppy.on("upload-progress", (_, { bytesUploaded }) => bytesUploaded >= abortAt && uppy.cancelAll());
    }
    const { successful = [], failed = [] } = (await uppy.upload()) ?? {};
    if (failed.length) {
        throw failed[0].error;
    }
    return { url: successful[0]?.uploadURL, aborted: successful.length === 0 };
}

try {
    console.log(JSON.stringify(await (client === "uppy" ? withUppy() : withTus())));
} catch (error) {
    console.error(error);
    process.exitCode = 1;
}

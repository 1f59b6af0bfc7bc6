"use strict";

// Everything here is a convenience: each page works without it.
(function () {
    function copyButtons(root) {
        for (const button of root.querySelectorAll("[data-blobstore-copy]")) {
            if (!navigator.clipboard) {
                continue;
            }
            button.hidden = false;
            button.addEventListener("click", async () => {
                const status = document.getElementById(button.getAttribute("aria-describedby"));
                await navigator.clipboard.writeText(button.dataset.blobstoreCopy);
                status.textContent = button.dataset.done;
                window.setTimeout(() => { status.textContent = ""; }, 3000);
            });
        }
    }

    function selection(root) {
        const all = root.querySelector("[data-blobstore-all]");
        if (!all) {
            return;
        }
        const boxes = Array.from(root.querySelectorAll("[data-blobstore-one]"));
        const button = root.querySelector("[data-blobstore-needs-selection]");
        const count = root.querySelector("[data-blobstore-count]");
        const show = () => {
            const chosen = boxes.filter((box) => box.checked).length;
            all.checked = chosen === boxes.length;
            all.indeterminate = chosen > 0 && chosen < boxes.length;
            button.disabled = chosen === 0;
            count.textContent = chosen ? count.dataset.some.replace("%s", String(chosen)) : count.dataset.none;
            for (const box of boxes) {
                box.closest("tr").classList.toggle("selected", box.checked);
            }
        };
        all.addEventListener("change", () => {
            for (const box of boxes) {
                box.checked = all.checked;
            }
            show();
        });
        for (const box of boxes) {
            box.addEventListener("change", show);
        }
        // The browser keeps what was selected when somebody comes back.
        window.addEventListener("pageshow", show);
        show();
    }

    // A page that is one step of a long task has a form that asks for the next one.
    async function steps() {
        let form = document.querySelector("[data-blobstore-steps]");
        while (form) {
            const response = await fetch(form.action, { method: "POST", body: new FormData(form) });
            if (!response.ok) {
                form.submit();
                return;
            }
            const page = new DOMParser().parseFromString(await response.text(), "text/html");
            document.title = page.title;
            const shown = document.getElementById("blobstore-steps");
            const next = page.getElementById("blobstore-steps");
            if (!next) {
                form.submit();
                return;
            }
            shown.replaceWith(next);
            form = document.querySelector("[data-blobstore-steps]");
        }
    }

    document.addEventListener("DOMContentLoaded", () => {
        copyButtons(document);
        selection(document);
        steps();
    });
})();

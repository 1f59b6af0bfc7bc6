"use strict";

// Everything here is a convenience: each page works without it.
(function () {
    function copyButtons(root) {
        for (const button of root.querySelectorAll("[data-blobstore-copy]")) {
            button.hidden = false;
            button.addEventListener("click", async () => {
                const status = document.getElementById(button.getAttribute("aria-describedby"));
                status.textContent = "";
                status.textContent = await copied(button) ? button.dataset.done : button.dataset.failed;
            });
        }
    }

    // A browser lets pages copy only if they came encrypted, and if nobody forbade it.
    async function copied(button) {
        const shown = document.getElementById(button.dataset.blobstoreCopy);
        try {
            await navigator.clipboard.writeText(shown.textContent);
            return true;
        } catch {
            window.getSelection().selectAllChildren(shown);
            return false;
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
        const spoken = document.getElementById("blobstore-spoken");
        while (form) {
            const asked = fetch(form.action, { method: "POST", body: new FormData(form) });
            const response = await asked.catch(() => null);
            if (!response?.ok) {
                form.submit();
                return;
            }
            const page = new DOMParser().parseFromString(await response.text(), "text/html");
            const shown = document.getElementById("blobstore-steps");
            const next = page.getElementById("blobstore-steps");
            if (!next) {
                form.submit();
                return;
            }
            const wasFocused = shown.contains(document.activeElement);
            document.title = page.title;
            document.querySelector("#content h1").textContent = page.querySelector("#content h1").textContent;
            shown.replaceWith(next);
            if (wasFocused) {
                next.querySelector("a.button, button")?.focus();
            }
            spoken.textContent = next.querySelector("[data-blobstore-told]").textContent.trim().replace(/\s+/g, " ");
            form = document.querySelector("[data-blobstore-steps]");
        }
    }

    document.addEventListener("DOMContentLoaded", () => {
        copyButtons(document);
        selection(document);
        steps();
    });
})();

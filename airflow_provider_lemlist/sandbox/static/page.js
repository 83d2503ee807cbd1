// SPDX-License-Identifier: Apache-2.0
// Refreshes each part marked data-live once a second with the HTML that the server renders.
"use strict";

// The scrollable elements of a part, in an order that a refresh does not change.
const places = (part) => [...part.querySelectorAll(".wide, .feed")];

for (const part of document.querySelectorAll("[data-live]")) {
  let shown = "";
  const refresh = async () => {
    const playing = [...part.querySelectorAll("audio")].some((audio) => !audio.paused);
    if (document.hidden || playing || !getSelection().isCollapsed) return;
    try {
      const response = await fetch(part.dataset.live);
      const html = response.ok ? await response.text() : shown;
      if (html !== shown) {
        const scrolled = places(part).map((box) => [box.scrollLeft, box.scrollTop]);
        // The server has escaped it, and the content security policy runs no script but this one.
        part.innerHTML = html;
        places(part).forEach((box, number) => box.scrollTo(...(scrolled[number] ?? [0, 0])));
        shown = html;
      }
      document.body.classList.remove("gone");
    } catch {
      document.body.classList.add("gone");
    }
  };
  setInterval(refresh, 1000);
}

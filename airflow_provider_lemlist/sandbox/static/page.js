// SPDX-License-Identifier: Apache-2.0
// Refreshes each part marked data-live with what the server renders now, once a second.
"use strict";

// What can be scrolled within a part, in an order that a refresh keeps.
const places = (part) => [...part.querySelectorAll(".wide, .feed")];

for (const part of document.querySelectorAll("[data-live]")) {
  let shown = "";
  const refresh = async () => {
    const playing = [...part.querySelectorAll("audio")].some((audio) => !audio.paused);
    if (document.hidden || playing || !getSelection().isCollapsed) return;
    try {
      const answer = await fetch(part.dataset.live);
      const html = answer.ok ? await answer.text() : shown;
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

// Tables and figures as files, made in the page: nothing is fetched. Wide tables say where they go on.
"use strict";
(() => {
  const { files } = JSON.parse(document.getElementById("data").textContent);
  const DRAWN = [
    "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "font-family", "font-size",
  ];

  function save(name, text, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // The drawing for a desk in light colours, with all that the style sheet says of it written out.
  function standalone(svg) {
    const copy = svg.cloneNode(true);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const light = document.createElement("div");
    light.className = "light";
    light.hidden = true;
    light.append(svg.cloneNode(true));
    svg.after(light);
    const [from, to] = [light.firstChild, copy].map((node) => [...node.querySelectorAll("*")]);
    from.forEach((node, i) => {
      const style = getComputedStyle(node);
      for (const name of DRAWN) to[i].setAttribute(name, style.getPropertyValue(name));
      to[i].removeAttribute("class");
    });
    const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const fill = getComputedStyle(light).getPropertyValue("--paper").trim();
    for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill })) paper.setAttribute(name, value);
    copy.prepend(paper);
    light.remove();
    return new XMLSerializer().serializeToString(copy);
  }

  for (const place of document.querySelectorAll(".get")) {
    const { file } = place.dataset;
    place.hidden = false;
    for (const button of place.querySelectorAll("button")) {
      button.setAttribute("aria-label", `${file}.${button.dataset.as}`);
      button.addEventListener("click", () => {
        if (button.dataset.as === "csv") save(`${file}.csv`, files[file], "text/csv;charset=utf-8");
        else save(`${file}.svg`, standalone(place.closest("figure").querySelector("svg.wide")), "image/svg+xml");
      });
    }
  }

  for (const box of document.querySelectorAll(".scroll")) {
    const look = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 2);
    box.addEventListener("scroll", look, { passive: true });
    new ResizeObserver(look).observe(box);
  }
})();

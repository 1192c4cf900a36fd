// The lessons' widgets: each control picks one of the pictures that were drawn when the site was built.
document.querySelectorAll(".widget").forEach((widget) => {
  const states = JSON.parse(widget.querySelector("script").textContent);
  const controls = [...widget.querySelectorAll("[data-at]")];
  const picture = widget.querySelector("img");
  const words = widget.querySelector(".words");
  let said = widget.querySelector(".said");
  const read = {
    checkbox: (control) => [Number(control.checked), 2],
    range: (control) => [Number(control.value), Number(control.max) + 1],
    "select-one": (control) => [control.selectedIndex, control.options.length],
  };
  const show = () => {
    let at = 0; // the last control moves fastest
    for (const control of controls) {
      const [value, count] = read[control.type](control);
      at = at * count + value;
      if (control.type === "range") {
        const text = JSON.parse(control.dataset.labels)[value];
        control.setAttribute("aria-valuetext", text);
        control.nextElementSibling.textContent = text;
      }
    }
    const [source, alt, text] = states[at];
    picture.src = source;
    picture.alt = alt;
    if (said) said.textContent = text;
    words.textContent = alt; // read aloud
  };
  widget.addEventListener("input", show);
});

// Names that the theme leaves out for screen readers, or puts before the words that stand there.
document.querySelectorAll(".bd-links li.has-children > details > summary").forEach((summary) => {
  const title = summary.closest("li").querySelector("a").textContent.trim();
  summary.setAttribute("aria-label", `Pages under ${title}`);
});
document.querySelectorAll(".search-button-field").forEach((button) => button.removeAttribute("aria-label"));
document.querySelectorAll("details.hide > summary").forEach((summary) => summary.removeAttribute("aria-label"));

// A long signature is a list of parameters, and no list of words and meanings.
document.querySelectorAll("dt.sig dl").forEach((list) => {
  list.role = "list";
  for (const parameter of list.children) parameter.role = "listitem";
});

// A page that was opened from a file may not read others, so a search there tells titles alone.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A formula or a table that is wider than a phone scrolls by keyboard, too.
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  document.querySelectorAll('div.math, mjx-container[display="true"], div.text_html').forEach((wide) => {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
  });
});

"use strict";
(() => {
  const root = document.documentElement;
  const tools = document.querySelector(".tools");
  if (!tools) return;
  const codes = [...document.querySelectorAll("details.code")];
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const act = {
    code(button) {
      const open = codes.some((code) => !code.open);
      for (const code of codes) code.open = open;
      button.textContent = open ? "Hide all code" : "Show all code";
    },
    theme(button) {
      root.dataset.theme = dark() ? "light" : "dark";
      button.textContent = dark() ? "Light" : "Dark";
    },
    copy(button) {
      const text = button.parentElement.querySelector("pre").textContent;
      const done = () => { button.textContent = "Copied"; };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
    },
  };
  tools.hidden = false;
  for (const button of tools.querySelectorAll("button")) {
    if (button.dataset.do === "code" && !codes.length) button.hidden = true;
    if (button.dataset.do === "theme") button.textContent = dark() ? "Light" : "Dark";
  }
  for (const code of codes) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.do = "copy";
    button.textContent = "Copy";
    code.append(button);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button) act[button.dataset.do](button);
  });
  const contents = document.querySelector(".contents details");
  if (contents && !matchMedia("(min-width: 72rem)").matches) contents.open = false;
})();

// Light or dark: the system's choice until somebody presses the button. Runs before anything is drawn.
"use strict";
{
  const kept = localStorage.getItem("miniserve-theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
}

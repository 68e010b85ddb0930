"use strict";
// Collects what was chosen under each pair into one file, which `diffusioncleft filter SET --review` reads.
const form = document.getElementById("review");
const said = document.getElementById("said");

function reviewed() {
  const pairs = [];
  for (const choices of form.querySelectorAll("fieldset")) {
    const chosen = choices.querySelector("input:checked");
    if (chosen) {
      const { condition, image, content, similarity } = choices.dataset;
      pairs.push({ condition, image, content, similarity: Number(similarity), verdict: chosen.value });
    }
  }
  return pairs;
}

function count() {
  const all = form.querySelectorAll("fieldset").length;
  said.textContent = `${reviewed().length} of ${all} pairs reviewed.`;
}

form.addEventListener("change", count);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const review = { kind: form.dataset.kind, schema: Number(form.dataset.schema), pairs: reviewed() };
  const file = new Blob([JSON.stringify(review, null, 1) + "\n"], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "review.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  said.textContent = `${review.pairs.length} pairs saved as review.json, in the browser’s folder for downloads.`;
});
count();

const box = document.getElementById("filter");
const count = document.getElementById("count");
const entries = [...document.querySelectorAll("article, section li")];
const texts = entries.map((entry) => entry.textContent.toLowerCase());
const all = count.textContent;
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  entries.forEach((entry, i) => {
    entry.hidden = !words.every((word) => texts[i].includes(word));
    shown += !entry.hidden;
  });
  count.textContent = words.length ? `${shown} of ${entries.length} shown` : all;
});

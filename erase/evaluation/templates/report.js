// Enlarges a pair in the dialog; arrow keys and buttons step through all pairs.
(() => {
  const dialog = document.querySelector("dialog");
  const cards = [...document.querySelectorAll(".pair button")];
  const part = (name) => dialog.querySelector(`[data-part="${name}"]`);
  let shown = 0;
  const show = (index) => {
    shown = (index + cards.length) % cards.length;
    const card = cards[shown];
    part("prompt").textContent = card.dataset.prompt;
    part("place").textContent = `${shown + 1} of ${cards.length}`;
    part("seed").textContent = card.dataset.seed;
    part("status").textContent = card.dataset.status;
    card.querySelectorAll("img").forEach((image, side) => {
      const name = side ? "after" : "before";
      part(name).src = image.src;
      part(name).alt = image.alt;
      part(`${name}-seen`).textContent = card.dataset[name];
    });
    if (!dialog.open) dialog.showModal();
  };
  cards.forEach((card, index) => card.addEventListener("click", () => show(index)));
  part("previous").addEventListener("click", () => show(shown - 1));
  part("next").addEventListener("click", () => show(shown + 1));
  part("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(shown - 1);
    if (event.key === "ArrowRight") show(shown + 1);
  });
  dialog.addEventListener("close", () => cards[shown].focus());
})();

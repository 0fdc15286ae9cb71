(function () {
  "use strict";
  var tip = document.getElementById("tip");
  document.documentElement.classList.add("scripted");

  function fill(lines) {
    tip.replaceChildren();
    lines.forEach(function (line) {
      var row = document.createElement("div");
      row.textContent = line;
      tip.appendChild(row);
    });
    tip.hidden = false;
  }

  function explain(term) {
    fill([term.textContent, term.dataset.meaning]);
    var box = term.getBoundingClientRect();
    var width = document.documentElement.clientWidth;
    var left = Math.max(8, Math.min(box.left, width - 8 - tip.offsetWidth));
    tip.style.left = left + window.scrollX + "px";
    tip.style.top = box.bottom + 6 + window.scrollY + "px";
  }

  function show(hit) {
    fill(hit.dataset.words.split("\n"));
    var svg = hit.ownerSVGElement;
    var box = svg.getBoundingClientRect();
    var ratio = box.width / svg.viewBox.baseVal.width;
    var x = box.left + Number(hit.dataset.x) * ratio;
    var y = box.top + Number(hit.dataset.y) * ratio;
    var width = document.documentElement.clientWidth;
    var left = x + 14;
    if (left + tip.offsetWidth > width - 8) left = x - 14 - tip.offsetWidth;
    left = Math.max(8, Math.min(left, width - 8 - tip.offsetWidth));
    var top = hit.classList.contains("band") ? y + 8 : y - tip.offsetHeight - 14;
    tip.style.left = left + window.scrollX + "px";
    tip.style.top = Math.max(window.scrollY + 4, top + window.scrollY) + "px";
  }

  function hide() {
    tip.hidden = true;
  }

  function move(event) {
    var hit = event.currentTarget;
    var all = Array.prototype.slice.call(hit.ownerSVGElement.querySelectorAll(".band"));
    var at = all.indexOf(hit);
    var to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape") hide();
    if (at < 0 || to === undefined || !all[to]) return;
    event.preventDefault();
    hit.setAttribute("tabindex", "-1");
    all[to].setAttribute("tabindex", "0");
    all[to].focus();
  }

  function bind(root) {
    root.querySelectorAll(".hit").forEach(function (hit) {
      // The script's tooltip replaces the browser's own, so that only one is shown.
      var title = hit.querySelector("title");
      hit.dataset.words = title.textContent;
      title.remove();
      hit.addEventListener("pointerenter", function () { show(hit); });
      hit.addEventListener("pointerleave", hide);
      hit.addEventListener("focus", function () { show(hit); });
      hit.addEventListener("blur", hide);
      hit.addEventListener("keydown", move);
    });

    root.querySelectorAll(".term").forEach(function (term) {
      term.addEventListener("pointerenter", function () { explain(term); });
      term.addEventListener("pointerleave", hide);
      term.addEventListener("focus", function () { explain(term); });
      term.addEventListener("blur", hide);
      term.addEventListener("keydown", function (event) { if (event.key === "Escape") hide(); });
    });
  }
  bind(document);
  // A part of the page was redrawn.
  document.addEventListener("drawn", function (event) { hide(); bind(event.target); measure(); });

  function measure() {
    document.querySelectorAll(".scroll").forEach(function (box) {
      box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
    });
  }
  window.addEventListener("resize", measure);
  document.addEventListener("toggle", measure, true);
  measure();

  var contents = document.querySelector(".contents details");
  var narrow = window.matchMedia("(max-width: 67rem)");
  function fold() { contents.open = !narrow.matches; }
  if (contents) {
    narrow.addEventListener("change", fold);
    fold();
  }

  var closed = [];
  window.addEventListener("beforeprint", function () {
    closed = Array.prototype.slice.call(document.querySelectorAll("main details:not([open])"));
    closed.forEach(function (item) { item.open = true; });
  });
  window.addEventListener("afterprint", function () {
    closed.forEach(function (item) { item.open = false; });
  });
})();

(function () {
  "use strict";
  var form = document.getElementById("filters");
  var list = document.getElementById("examples");
  var told = document.getElementById("told");
  var drawn = Array.prototype.slice.call(list.children);
  var rows = drawn.map(function (item) {
    function words(selector) {
      var found = item.querySelector(selector);
      return found ? found.textContent : "";
    }
    var right = item.classList.contains("is-right");
    var said = words(".said b");
    return {
      item: item,
      text: item.querySelector(".text").textContent.toLowerCase(),
      all: item.textContent.toLowerCase(),
      said: said.split(", "),
      // A correct prediction shows its label only once.
      label: right ? said.split(", ") : words(".label span:not(.muted)").split(", "),
      right: right,
      judged: right || item.classList.contains("is-wrong"),
      sure: parseFloat(item.dataset.sure),
      loss: parseFloat(item.dataset.loss)
    };
  });

  function value(id) {
    var field = document.getElementById(id);
    return field ? field.value : "";
  }

  function has(row, name, wanted) {
    if (row.item.querySelector(".tag")) {
      return Array.prototype.some.call(row.item.querySelectorAll(".tag small"), function (small) {
        var parts = small.textContent.split(", labelled ");
        var tag = name === "said" ? parts[0] : parts[parts.length - 1];
        return tag === wanted || tag.slice(tag.indexOf("-") + 1) === wanted;
      });
    }
    return row[name].indexOf(wanted) >= 0 || row[name].join(", ") === wanted;
  }

  function matches(row) {
    var find = value("find").trim().toLowerCase();
    var verdict = value("verdict");
    return (!find || (guessing() && !row.item.classList.contains("open") ? row.text : row.all).indexOf(find) >= 0) &&
      (!value("label") || has(row, "label", value("label"))) &&
      (!value("said") || has(row, "said", value("said"))) &&
      (!verdict || (row.judged && row.right === (verdict === "right"))) &&
      (!value("level") || row.item.dataset.level === value("level"));
  }

  function guessing() {
    return document.getElementById("guess").checked;
  }

  function compare(by) {
    var key = by === "worst" ? "loss" : "sure";
    var sign = by === "least" ? 1 : -1;
    return function (a, b) {
      var x = rows[a][key], y = rows[b][key];
      if (isNaN(x) || isNaN(y)) { return (isNaN(x) ? 1 : 0) - (isNaN(y) ? 1 : 0) || a - b; }
      return sign * (x - y) || a - b;
    };
  }

  function order() {
    var places = rows.map(function (_, place) { return place; });
    var by = value("order");
    if (by) { places.sort(compare(by)); }
    var all = document.createDocumentFragment();
    places.forEach(function (place) { all.appendChild(rows[place].item); });
    list.appendChild(all);
  }

  function update() {
    document.documentElement.classList.toggle("guessing", guessing());
    var shown = rows.filter(function (row) {
      row.item.hidden = !matches(row);
      return !row.item.hidden;
    });
    var judged = shown.filter(function (row) { return row.judged; });
    var right = judged.filter(function (row) { return row.right; });
    var words = shown.length + " of " + rows.length + " examples are shown";
    if (judged.length && !guessing()) {
      words += "; " + right.length + " of " + judged.length + " predictions are correct";
    }
    told.textContent = words + ".";
  }

  rows.forEach(function (row) {
    var button = document.createElement("button");
    button.type = "button";
    button.className = "show";
    button.textContent = "Show the prediction";
    button.addEventListener("click", function () {
      row.item.classList.add("open");
      row.item.focus();
    });
    row.item.querySelector(".answer").appendChild(button);
  });

  list.tabIndex = 0;
  list.addEventListener("keydown", function (event) {
    var seen = Array.prototype.filter.call(list.children, function (item) { return !item.hidden; });
    var at = seen.indexOf(document.activeElement.closest ? document.activeElement.closest(".example") : null);
    var next = event.key === "ArrowDown" ? at + 1 : event.key === "ArrowUp" ? at - 1 : -1;
    if (event.key === "Enter" && at >= 0 && event.target === seen[at]) { seen[at].classList.add("open"); }
    if (next < 0 || next >= seen.length) { return; }
    event.preventDefault();
    seen[next].focus();
    seen[next].scrollIntoView({ block: "nearest" });
  });
  form.addEventListener("input", update);
  document.getElementById("order").addEventListener("change", order);
  document.getElementById("all").addEventListener("click", function () {
    form.reset();
    rows.forEach(function (row) { row.item.classList.remove("open"); });
    order();
    update();
  });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.hidden = false;
  update();
})();

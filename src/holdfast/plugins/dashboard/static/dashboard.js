(function () {
  "use strict";
  var body = document.body;
  var page = body.dataset.page || "";
  var said = document.getElementById("said");

  function say(text) {
    said.textContent = "";
    // A live region announces the same text only once, unless it is cleared first.
    window.setTimeout(function () { said.textContent = text; }, 30);
  }

  function swap(place, html) {
    var focused = place.contains(document.activeElement) ? document.activeElement.id : "";
    var open = Array.prototype.map.call(place.querySelectorAll("details[open] > summary"), function (one) { return one.textContent; });
    var fresh = new DOMParser().parseFromString(html, "text/html");
    place.replaceChildren.apply(place, Array.prototype.slice.call(fresh.body.childNodes));
    place.querySelectorAll("details > summary").forEach(function (one) {
      if (open.indexOf(one.textContent) >= 0) one.parentElement.open = true;
    });
    if (focused && document.getElementById(focused)) document.getElementById(focused).focus();
    place.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
  }

  // All addresses are below a path that only this dashboard's browsers know.
  var base = document.documentElement.dataset.base || "";
  function own(address) { return address.indexOf(base + "/") === 0 ? address : base + address; }

  function fetched(address, options) {
    return fetch(own(address), options || {}).then(function (answer) {
      if (answer.status === 401) window.location.reload();
      return answer.text().then(function (text) { return { ok: answer.ok, text: text, status: answer.status }; });
    });
  }

  // Events from the server while the page is visible: a browser has six connections for all tabs.
  function listen(address, tell) {
    var source = null;
    function start() {
      if (source || document.hidden) return;
      source = new EventSource(own(address()));
      ["look", "gone", "state", "list", "again"].forEach(function (kind) {
        source.addEventListener(kind, function (event) { tell(kind, event); });
      });
    }
    function stop() {
      if (source) source.close();
      source = null;
    }
    document.addEventListener("visibilitychange", function () { if (document.hidden) stop(); else { tell("back", null); start(); } });
    window.addEventListener("pagehide", stop);
    window.addEventListener("pageshow", start);
    start();
  }

  // One redraw at a time; any requests in the meantime cause one more afterwards.
  function drawer(draw) {
    var busy = false, again = false;
    function go() {
      if (busy) { again = true; return; }
      busy = true;
      draw().catch(function () {}).then(function () {
        busy = false;
        if (again) { again = false; go(); }
      });
    }
    return go;
  }

  function runs() {
    var form = document.querySelector("[data-list]");
    var list = document.getElementById("list");
    var words = document.getElementById("q");
    var timer = 0;

    function address() {
      var asked = new URLSearchParams(new FormData(form));
      Array.from(asked.keys()).forEach(function (key) { if (!asked.get(key)) asked.delete(key); });
      var found = new URLSearchParams(window.location.search);
      ["sort", "page"].forEach(function (key) { if (found.get(key)) asked.set(key, found.get(key)); });
      return asked;
    }
    function chosen() {
      return Array.prototype.map.call(list.querySelectorAll(".pick input:checked"), function (one) { return one.value; });
    }
    function count() {
      var button = list.querySelector("[data-compare] button");
      if (button) {
        var n = chosen().length;
        button.disabled = n < 2 || n > 6;
        button.textContent = n >= 2 ? "Compare " + n + " runs" : "Compare selected runs";
      }
    }
    var draw = drawer(function () {
      var asked = address(), kept = chosen();
      asked.set("part", "list");
      return fetched("/?" + asked).then(function (answer) {
        if (!answer.ok) return;
        swap(list, answer.text);
        list.querySelectorAll(".pick input").forEach(function (one) { one.checked = kept.indexOf(one.value) >= 0; });
        count();
        if (list.querySelector("[data-unread]")) window.setTimeout(draw, 300);
      });
    });
    function asked() {
      var found = new URLSearchParams(window.location.search);
      found.delete("page");
      window.history.replaceState(null, "", "?" + found);
      var now = address();
      window.history.replaceState(null, "", now.toString() ? "?" + now : own("/"));
      draw();
      window.setTimeout(function () {
        var found = document.getElementById("found");
        if (found) say(found.textContent);
      }, 400);
    }
    form.addEventListener("submit", function (event) { event.preventDefault(); asked(); });
    form.querySelectorAll("select").forEach(function (one) { one.addEventListener("change", asked); });
    words.addEventListener("input", function () { window.clearTimeout(timer); timer = window.setTimeout(asked, 150); });
    list.addEventListener("change", count);
    count();
    if (list.querySelector("[data-unread]")) draw();
    listen(function () { return "/news"; }, function () { draw(); });
    keys({ "/": function () { words.focus(); words.select(); } });
  }

  function going() {
    var live = document.getElementById("live");
    var name = body.dataset.run;
    function here() { return live.firstElementChild ? live.firstElementChild.dataset : body.dataset; }
    var draw = drawer(function () {
      return fetched("/run/" + name.split("/").map(encodeURIComponent).join("/") + "?part=live").then(function (answer) {
        if (answer.status === 404) { say("The run was removed."); return; }
        if (!answer.ok) return;
        swap(live, answer.text);
        if (here().state === "finished") window.location.reload();
      });
    });
    listen(function () {
      return "/news?run=" + encodeURIComponent(name) + "&after=" + encodeURIComponent(here().place);
    }, function (kind, event) {
      if (kind === "look" && event.data) say(event.data);
      draw();
    });
  }

  function compare() {
    var place = document.getElementById("paired");
    var button = place && place.querySelector("a.button");
    if (!button) return;
    place.setAttribute("aria-busy", "true");
    button.textContent = "Testing …";
    fetched(place.dataset.address).then(function (answer) {
      place.removeAttribute("aria-busy");
      if (answer.ok) swap(place, answer.text); else button.textContent = "Run the test";
    });
  }

  function service() {
    var place = document.getElementById("service");
    if (!place) return;
    var draw = drawer(function () {
      return fetched("/service?part=view&span=" + place.dataset.span).then(function (answer) {
        // Not while the focus is inside: a reader of a table is not disturbed.
        if (answer.ok && !place.contains(document.activeElement)) swap(place, answer.text);
      });
    });
    window.setInterval(function () { if (!document.hidden) draw(); }, 10000);
  }

  function asking() {
    var form = document.getElementById("ask");
    var answer = document.getElementById("answer");
    if (!form) return;
    form.addEventListener("submit", function (event) {
      event.preventDefault();
      var button = form.querySelector("button");
      var file = form.querySelector("input[type=file]");
      var why = form.querySelector("[name=why]").checked ? "&why=1" : "";
      var address = form.getAttribute("action") + "&part=answer";
      var options = file
        ? { method: "POST", body: file.files[0], headers: { "Content-Type": "application/octet-stream" } }
        : { method: "POST", body: new URLSearchParams(new FormData(form)) };
      button.disabled = true;
      answer.classList.add("busy");
      say("Predicting.");
      fetched(address + (file ? why : ""), options).then(function (found) {
        swap(answer, found.text);
      }).catch(function () { say("The dashboard cannot be reached."); }).then(function () {
        button.disabled = false;
        answer.classList.remove("busy");
      });
    });
    form.addEventListener("keydown", function (event) {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    answer.addEventListener("submit", function (event) {
      var sent = event.target;
      if (!sent.matches("[data-feedback]")) return;
      event.preventDefault();
      var data = new URLSearchParams(new FormData(sent));
      fetched(sent.getAttribute("action") + "&part=thanks", { method: "POST", body: data }).then(function (found) {
        if (found.ok) swap(sent, found.text); else say(found.text.replace(/<[^>]*>/g, " "));
        if (!found.ok) { var p = sent.querySelector(".wrong") || sent.appendChild(document.createElement("p")); p.className = "wrong"; p.setAttribute("role", "alert"); p.textContent = new DOMParser().parseFromString(found.text, "text/html").body.textContent; }
      });
    });
  }

  function typing(event) {
    var e = event.target;
    return e.matches && e.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
  }

  function keys(known) {
    document.addEventListener("keydown", function (event) {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
      var act = known[event.key];
      if (act) { event.preventDefault(); act(event); }
    });
  }

  function label() {
    var place = document.getElementById("labelling");
    if (!place) return;
    function form() { return place.querySelector("form[data-task]"); }
    function press(name) {
      var button = form() && form().querySelector("button[value=" + name + "]");
      if (button && !button.disabled) button.click();
    }
    function choose(step) {
      var all = form() ? Array.prototype.slice.call(form().querySelectorAll(".labels input")) : [];
      if (!all.length) return;
      var at = all.findIndex(function (one) { return one.checked; });
      var next = all[(at + step + all.length + (at < 0 && step < 0 ? 1 : 0)) % all.length];
      next.checked = true;
      next.focus();
    }
    function keyed(key) {
      var one = form() && form().querySelector('.labels input[data-key="' + key + '"]');
      if (one) { one.checked = one.type === "radio" || !one.checked; one.focus(); }
    }
    place.addEventListener("submit", function (event) {
      if (!event.target.matches("form[data-task]")) return;
      event.preventDefault();
      var data = new URLSearchParams(new FormData(event.target, event.submitter));
      place.classList.add("busy");
      fetched("/label?part=task", { method: "POST", body: data }).then(function (found) {
        place.classList.remove("busy");
        swap(place, found.text);
        var task = place.querySelector(".task");
        if (task) task.focus();
        var told = place.querySelector("[data-told]");
        if (told) say(told.textContent);
      });
    });
    place.addEventListener("keydown", function (event) {
      // Enter on a chosen label stores it, as in a form without scripts.
      if (event.key === "Enter" && event.target.matches(".labels input")) { event.preventDefault(); press("store"); }
    });
    var known = {
      s: function () { press("skip"); }, u: function () { press("undo"); }, "?": function () { press("suggest"); },
      Enter: function () { if (document.activeElement === document.body || document.activeElement.matches(".task")) press("store"); },
      ArrowDown: function () { choose(1); }, ArrowUp: function () { choose(-1); },
      ArrowRight: function () { choose(1); }, ArrowLeft: function () { choose(-1); }
    };
    for (var n = 0; n <= 9; n += 1) known[n] = keyed.bind(null, n);
    document.addEventListener("keydown", function (event) {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event)) return;
      if (event.key === "Enter" && event.target.matches("button, a, .labels input")) return;
      var act = known[event.key];
      if (act) { event.preventDefault(); act(); }
    });
  }

  ({ runs: runs, going: going, compare: compare, "try": asking, label: label, service: service }[page] || function () {})();
})();

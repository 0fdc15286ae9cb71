/* Sphinx finds only pages that have every word of a query, and index entries that contain it whole.
 * Here a page needs any of the words, and rare words count more (inverse document frequency). It is
 * scored by how much of the query its best index entry (docs/search_words.yaml), its title and its
 * text cover. Sphinx's own results follow: sections, objects of the API. */
"use strict";

const OF_ENTRY = 10, OF_TITLE = 4, OF_TEXT = 2, MOST_PAGES = 30, LEAST_SCORE = 1;
// Pages that mention everything, and are rarely what is searched for.
const ASIDE = [
  [/^benchmarks\/|^CHANGELOG|^CONTRIBUTING|^SECURITY|^docs\/design/, 0.4],
  [/^docs\/(reference|recipe|checks)|^recipes\//, 0.7],
];

const words = (text) => {
  const stemmer = new Stemmer();
  return [...new Set(splitQuery(text.toLowerCase()).map((word) => stemmer.stemWord(word)))];
};

const rankPages = (index, query) => {
  const pages = index.docnames.length, asked = words(query);
  const entries = Object.entries(index.indexentries).map(([entry, found]) => [words(entry), found]);
  const filesOf = (table, word) =>
    Object.hasOwn(table, word) ? [table[word]].flat() : [];
  const rarity = (word) => {
    const named = new Set([...filesOf(index.terms, word), ...filesOf(index.titleterms, word)]);
    for (const [entry, found] of entries)
      if (entry.includes(word)) found.forEach(([file]) => named.add(file));
    // A word that stands nowhere tells no page from another.
    return named.size && Math.log(1 + pages / (1 + named.size));
  };
  const weight = new Map(asked.map((word) => [word, rarity(word)]));
  const sum = (some) => some.reduce((total, word) => total + (weight.get(word) ?? rarity(word)), 0);
  const total = sum(asked), score = new Array(pages).fill(0);
  if (!total) return [];

  const best = new Array(pages).fill(0);
  for (const [entry, found] of entries) {
    const shared = entry.filter((word) => weight.has(word));
    if (!shared.length) continue;
    // Dice's coefficient, weighted: of two entries the one without other words wins.
    const match = (2 * sum(shared)) / (total + sum(entry));
    for (const [file] of found) best[file] = Math.max(best[file], match);
  }
  best.forEach((match, file) => { score[file] += OF_ENTRY * match; });
  for (const [word, rare] of weight) {
    for (const [table, points] of [[index.titleterms, OF_TITLE], [index.terms, OF_TEXT]])
      new Set(filesOf(table, word)).forEach((file) => { score[file] += (points * rare) / total; });
  }
  return score
    .map((points, file) => {
      const rule = ASIDE.find(([path]) => path.test(index.docnames[file]));
      return [file, points * (rule ? rule[1] : 1)];
    })
    .filter(([, points]) => points >= LEAST_SCORE)
    .sort(([one, a], [other, b]) => b - a || one - other)
    .slice(0, MOST_PAGES);
};

// Before Sphinx begins, whose scripts come after this one.
document.addEventListener("DOMContentLoaded", () => {
  const sphinxSearch = Search._performSearch;
  Search._performSearch = (query, ...terms) => {
    const index = Search._index, name = query.toLowerCase().trim();
    const isNamed = ([, title, , , , , kind]) =>
      kind === SearchResultKind.object
      && (title.toLowerCase() === name || title.toLowerCase().endsWith(`.${name}`));
    const pages = rankPages(index, query).map(([file, score]) => [
      index.docnames[file], index.titles[file], "", null, score, index.filenames[file],
      SearchResultKind.text,
    ]);
    const parts = sphinxSearch(query, ...terms).reverse()
      .filter(([, , anchor, descr]) => anchor || descr);
    // Shown from the end.
    return [
      ...parts.filter(isNamed), ...pages, ...parts.filter((result) => !isNamed(result)),
    ].reverse();
  };
});

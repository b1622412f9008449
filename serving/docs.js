// Draws /openapi.json as a page; no other file, no other host.
const make = (tag, text = "") => Object.assign(document.createElement(tag), { textContent: text });

function draw(path, verb, operation) {
  const box = make("details");
  const head = make("summary");
  head.append(make("b", verb.toUpperCase()), make("code", path), ` — ${operation.summary}`);
  box.append(head, make("pre", JSON.stringify(operation, null, 2)));
  return box;
}

fetch("/openapi.json").then((answer) => answer.json()).then((api) => {
  const main = document.querySelector("main");
  for (const [path, verbs] of Object.entries(api.paths))
    for (const [verb, operation] of Object.entries(verbs)) main.append(draw(path, verb, operation));
  main.append(make("h2", "Types"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const box = make("details");
    box.append(make("summary", name), make("pre", JSON.stringify(schema, null, 2)));
    main.append(box);
  }
});

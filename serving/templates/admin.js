// Speaks between the pages and the authenticator. Everything that counts is checked by the service.
"use strict";
const decode = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const encode = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body || {}),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Error(typeof found.error === "string" ? found.error : found.error.message);
  return found;
}

async function assertion(challenge, site, credentials) {
  const found = await navigator.credentials.get({ publicKey: {
    challenge: decode(challenge), rpId: site, userVerification: "required",
    allowCredentials: credentials.map((id) => ({ type: "public-key", id: decode(id) })),
  } });
  const { authenticatorData, clientDataJSON, signature } = found.response;
  return { id: found.id, response: {
    authenticatorData: encode(authenticatorData), clientDataJSON: encode(clientDataJSON), signature: encode(signature),
  } };
}

async function login() {
  const asked = await post("/admin/login/options");
  const found = await assertion(asked.challenge, asked.site, asked.credentials);
  location.href = (await post("/admin/login", {
    token: asked.token, credential: { id: found.id }, response: found.response,
  })).next;
}

async function enrol() {
  const asked = await post("/admin/enrol/options");
  const made = await navigator.credentials.create({ publicKey: {
    challenge: decode(asked.challenge), rp: { id: asked.site, name: "Mews" },
    user: { id: crypto.getRandomValues(new Uint8Array(16)), name: "mews", displayName: "Mews" },
    pubKeyCredParams: [{ type: "public-key", alg: -8 }, { type: "public-key", alg: -7 }],
    authenticatorSelection: { userVerification: "required", residentKey: "preferred" }, attestation: "none",
  } });
  const credential = { id: made.id, rawId: made.id, type: made.type, response: {
    clientDataJSON: encode(made.response.clientDataJSON), attestationObject: encode(made.response.attestationObject),
  } };
  say((await post("/admin/enrol", { token: asked.token, credential })).line);
}

async function state(kind) {
  const reason = document.getElementById("reason").value;
  const drafted = await post(`${location.pathname}/draft`, { kind, reason });
  const found = await assertion(drafted.challenge, drafted.site, [drafted.credential]);
  const done = await post(`${location.pathname}/submit`, { payload: drafted.payload, response: found.response });
  say(`${done.state}: ${done.reason}`);
}

const say = (text) => { document.getElementById("said").textContent = text; };
const actions = { login, enrol, approve: () => state("approved"), reject: () => state("rejected") };
for (const [id, action] of Object.entries(actions)) {
  const button = document.getElementById(id);
  if (button) button.addEventListener("click", () => action().catch((error) => say(error.message)));
}

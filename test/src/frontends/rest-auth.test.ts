import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

const KEY = "a key of this test";

function token(subject: string, key = KEY, claims: object = {}): string {
  const now = Math.floor(Date.now() / 1000);
  const payload = { sub: subject, iat: now, nbf: now - 1, exp: now + 60, ...claims };
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const content = `${part({ alg: "HS256", typ: "JWT" })}.${part(payload)}`;
  return `${content}.${createHmac("sha256", key).update(content).digest("base64url")}`;
}

function config(global: string, guarded: string): string {
  return `
libstorage:
  server:
    ${global}
    services:
      open: {driver: mock}
      guarded:
        driver: mock
        ${guarded}
`;
}

describe("tokens over REST", () => {
  let server: RestServer;
  const as = (subject: string, key?: string, claims?: object) => ({
    headers: { Authorization: `Bearer ${token(subject, key, claims)}` },
  });
  const status = async (method: string, path: string, asked = {}): Promise<number> =>
    (await server.ask(method, path, asked)).status;

  describe("globally and for one service", () => {
    before(async () => {
      server = await startRest(
        config(
          `auth: {key: ${KEY}, allow: [ann, bob]}`,
          "auth: {deny: bob, allow: [ann, bob, eve]}",
        ),
      );
    });
    after(() => server.close());

    it("a service's lists only take away from the global ones", async () => {
      assert.equal(await status("GET", "/volumes/guarded", as("ann")), 200);
      assert.equal(await status("GET", "/volumes/guarded", as("bob")), 401);
      assert.equal(await status("GET", "/volumes/open", as("bob")), 200);
      assert.equal(await status("GET", "/volumes/guarded", as("eve")), 401);
    });
    it("a copy into another service needs both", async () => {
      const made = await server.ask("POST", "/volumes/open", { ...as("ann"), body: { name: "a" } });
      const path = `/volumes/open/${made.json()["id"] as string}?copy`;
      const copyTo = (service: string, subject: string): Promise<number> =>
        status("POST", path, { ...as(subject), body: { volumeName: "b", service } });
      assert.equal(await copyTo("guarded", "bob"), 401);
      assert.equal(await copyTo("GUARDED", "bob"), 401);
      assert.equal(await copyTo("guarded", "ann"), 501);
      assert.equal(await copyTo("open", "bob"), 201);
      assert.equal(await copyTo("nowhere", "ann"), 404);
      assert.equal(await copyTo("", "ann"), 400);
    });
    it("what is about all services needs all of them", async () => {
      assert.equal(await status("GET", "/volumes", as("bob")), 401);
      assert.equal(await status("GET", "/volumes", as("ANN")), 200);
    });
    it("cancelling and following events are about all services", async () => {
      assert.equal(await status("DELETE", "/tasks/1", as("bob")), 401);
      assert.equal(await status("GET", "/tasks/1", as("bob")), 404);
      assert.equal(await status("GET", "/events", as("bob")), 401);
      assert.equal(await status("GET", "/events?service=guarded&lastEventID=x", as("bob")), 401);
      assert.equal(await status("GET", "/events?service=open&lastEventID=x", as("bob")), 400);
    });
    it("the subject is who did it", async () => {
      await server.ask("POST", "/volumes/guarded", { ...as("Ann"), body: { name: "mine" } });
      const events = [...server.app.storage.operations.events.since(0)];
      assert.equal(events.at(-1)?.who, "ann");
    });
    it("a token that was good does not outlive its end", async () => {
      const now = Math.floor(Date.now() / 1000);
      const short = as("ann", KEY, { exp: now + 2 });
      assert.equal(await status("GET", "/volumes/open", short), 200);
      await new Promise((resolve) => {
        setTimeout(resolve, 2100);
      });
      assert.equal(await status("GET", "/volumes/open", short), 401);
    });
    it("unrouted paths are answered before any check, routed ones after", async () => {
      assert.equal(await status("GET", "/nope"), 404);
      assert.equal(await status("POST", "/volumes/nope", { body: "{" }), 401);
    });
    it("refusals say nothing of their reason", async () => {
      const texts = await Promise.all(
        [as("bob"), as("ann", "another key"), {}].map(
          async (asked) => (await server.ask("GET", "/volumes/guarded", asked)).text,
        ),
      );
      assert.equal(new Set(texts).size, 1);
    });
  });

  it("disabled: true switches the check off", async () => {
    server = await startRest(config(`auth: {key: ${KEY}, allow: ann, disabled: true}`, ""));
    assert.equal(await status("GET", "/volumes"), 200);
    await server.close();
  });

  it("help is for the admin token, and shows no secret", async () => {
    server = await startRest(config("", `auth: {key: ${KEY}, allow: ann}`));
    const path = `/help/config?admin=${server.app.adminToken}`;
    const answer = await server.ask("GET", path);
    assert.equal(answer.status, 200);
    assert.ok(!answer.text.includes(KEY), answer.text);
    const wrong = await server.ask("GET", "/help/env?admin=wrong");
    assert.equal(wrong.status, 401);
    process.env["LIBSTORAGE_TEST_TOKEN"] = "sesame";
    const env = await server.ask("GET", `/help/env?admin=${server.app.adminToken}`);
    assert.ok(env.text.includes("LIBSTORAGE_TEST_TOKEN=REDACTED"));
    assert.ok(!env.text.includes("sesame"));
    delete process.env["LIBSTORAGE_TEST_TOKEN"];
    await server.close();
  });
});

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, get } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, it } from "node:test";
import { logAccess } from "./access-log.js";

async function logged(requests: boolean, responses: boolean, path: string): Promise<string> {
  let resolveLine = (_text: string): void => {};
  const line = new Promise<string>((resolve) => {
    resolveLine = resolve;
  });
  const server = createServer((req, res) => {
    logAccess({ requests, responses, write: resolveLine }, req, res);
    res.writeHead(201, ["Content-Type", "text/plain", "Content-Length", "2"]);
    res.end("ok");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const headers = { Authorization: "Bearer sesame" };
  get({ port, path, headers, agent: false }, (response) => response.resume());
  const text = await line;
  server.close();
  return text;
}

describe("the access log", () => {
  it("has one line per request in Apache's common format", async () => {
    assert.match(
      await logged(false, false, "/volumes?a=%22"),
      /^[\w.:]+ - - \[\d{2}\/\w{3}\/\d{4}:\d{2}:\d{2}:\d{2} \+0000\] "GET \/volumes\?a=%22 HTTP\/1\.1" 201 2$/,
    );
  });
  it("dumps heads as asked, without tokens", async () => {
    const text = await logged(true, true, "/help/config?admin=sesame&x=1");
    assert.match(text, /^ {4}Authorization: REDACTED$/m);
    assert.match(text, /^ {4}HTTP\/1\.1 201$/m);
    assert.match(text, /^ {4}Content-Type: text\/plain$/m);
    assert.ok(!text.includes("sesame"), text);
  });
});

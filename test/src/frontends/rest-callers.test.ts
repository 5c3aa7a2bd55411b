import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer as createPlain, request as requestPlain } from "node:http";
import { createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { makeCA, makeCertificate } from "@libstorage/server";
import type { KeyAndCertificate } from "@libstorage/server";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

describe("who is calling", () => {
  let server: RestServer;
  let ca: KeyAndCertificate;

  before(async () => {
    server = await startRest(mocks());
    ca = await makeCA({ commonName: "test CA", days: 1 });
  });
  after(() => server.close());

  const lastCaller = (): string | undefined =>
    [...server.app.storage.operations.events.since(0)].at(-1)?.who;

  async function createOverTls(client?: KeyAndCertificate): Promise<string> {
    const own = await makeCertificate("server", ca, { commonName: "localhost", days: 1 });
    const tls = createServer(
      {
        key: own.key,
        cert: own.certificate,
        ca: ca.certificate,
        requestCert: true,
        rejectUnauthorized: false,
      },
      (req, res) => server.app.handler(req, res),
    ).listen(0, "127.0.0.1");
    await once(tls, "listening");
    const { port } = tls.address() as AddressInfo;
    const ask = async (method: string, path: string, body: string): Promise<string> => {
      const sent = request({
        port,
        method,
        path,
        host: "127.0.0.1",
        rejectUnauthorized: false,
        agent: false,
        ...(client !== undefined && { key: client.key, cert: client.certificate }),
      }).end(body);
      const [response] = (await once(sent, "response")) as [NodeJS.ReadableStream];
      let text = "";
      for await (const chunk of response) text += String(chunk);
      return text;
    };
    await ask("POST", "/volumes/one", '{"name":"by TLS"}');
    const root = await ask("GET", "/", "");
    tls.close();
    return root;
  }

  it("is the name in a verified certificate, and URLs are https then", async () => {
    const client = await makeCertificate("client", ca, { commonName: "host-1", days: 1 });
    const root = await createOverTls(client);
    assert.equal(lastCaller(), "host-1");
    assert.match(root, /"https:\/\/127\.0\.0\.1:\d+\/volumes"/);
  });
  it("is not what a certificate of a stranger says", async () => {
    const other = await makeCA({ commonName: "other CA", days: 1 });
    const client = await makeCertificate("client", other, { commonName: "host-1", days: 1 });
    await createOverTls(client);
    assert.equal(lastCaller(), "127.0.0.1");
  });
  it("is unix for a local socket", async () => {
    const socketPath = join(server.folder, "rest.sock");
    const plain = createPlain((req, res) => server.app.handler(req, res)).listen(socketPath);
    await once(plain, "listening");
    const sent = requestPlain({ socketPath, method: "POST", path: "/volumes/one", agent: false });
    sent.end('{"name":"by socket"}');
    const [response] = (await once(sent, "response")) as [NodeJS.ReadableStream];
    response.resume();
    await once(response, "end");
    plain.close();
    assert.equal(lastCaller(), "unix");
  });
});

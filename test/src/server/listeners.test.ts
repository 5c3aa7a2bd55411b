import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { Agent } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { TestContext } from "node:test";
import { SILENT, openListeners } from "@libstorage/server";
import type { EndpointConfig, HttpConfig, Listeners } from "@libstorage/server";
import { folderFor, request, talk, until } from "./fixture.js";

const LIMITS: HttpConfig = {
  bodyLimitBytes: 1024,
  maxConnections: 100,
  headersTimeoutMs: 1_000,
  requestTimeoutMs: 1_500,
  keepAliveTimeoutMs: 5_000,
};

type Handler = (req: IncomingMessage, res: ServerResponse) => void;

const hello: Handler = (req, res) => {
  req.resume();
  req.on("end", () => res.end("hello"));
};

async function open(
  t: TestContext,
  {
    handler = hello,
    limits = {},
    endpoints,
  }: {
    handler?: Handler;
    limits?: Partial<HttpConfig>;
    endpoints?: readonly EndpointConfig[];
  } = {},
): Promise<{ listeners: Listeners; port: number; url: string }> {
  const listeners = await openListeners({
    endpoints: endpoints ?? [tcp(0)],
    http: { ...LIMITS, ...limits },
    handler,
    log: SILENT,
    runFolder: folderFor(t),
  });
  t.after(() => listeners.close(0));
  const address = listeners.endpoints[0]?.address;
  const port = address?.kind === "tcp" ? address.port : 0;
  return { listeners, port, url: `http://127.0.0.1:${port}/` };
}

function tcp(port: number, name = "tcp"): EndpointConfig {
  return {
    name,
    address: { kind: "tcp", host: "127.0.0.1", port },
    socketMode: 0o600,
    isTls: false,
  };
}

function unix(path: string, socketMode = 0o600): EndpointConfig {
  return { name: "sock", address: { kind: "unix", path }, socketMode, isTls: false };
}

const head = (more = ""): string => `GET / HTTP/1.1\r\nHost: x\r\n${more}`;

describe("endpoints", () => {
  it("serve the same on all of them and say the port that was taken", async (t) => {
    const folder = folderFor(t);
    const path = join(folder, "deep/er/x.sock");
    const { listeners, url } = await open(t, {
      endpoints: [
        tcp(0),
        unix(path, 0o660),
        { ...unix(""), name: "auto", address: { kind: "auto-unix" } },
      ],
    });
    assert.equal((await request(url)).body, "hello");
    for (const { address } of listeners.endpoints.slice(1)) {
      assert.ok(address.kind === "unix");
      assert.equal((await request("http://x/", { socketPath: address.path })).body, "hello");
    }
    assert.equal(statSync(path).mode & 0o777, 0o660);
    await listeners.close(0);
    assert.equal(existsSync(path), false);
  });

  it("close again when one of them cannot be opened, and the error names it", async (t) => {
    const { port } = await open(t);
    const path = join(folderFor(t), "a.sock");
    await assert.rejects(open(t, { endpoints: [unix(path), tcp(port, "second")] }), {
      code: "unavailable",
      message: new RegExp(`endpoint second: tcp://127.0.0.1:${port} is in use by another program`),
    });
    assert.equal(existsSync(path), false);
  });

  it("name an address that this host does not have", async (t) => {
    const endpoint = { ...tcp(0), address: { kind: "tcp", host: "192.0.2.1", port: 0 } as const };
    await assert.rejects(open(t, { endpoints: [endpoint] }), /does not have the address/);
  });
});

describe("socket files", () => {
  it("of a dead server are replaced", async (t) => {
    const path = join(folderFor(t), "x.sock");
    const dead = createServer();
    dead.listen(path);
    await once(dead, "listening");
    // What a killed server leaves: the file stays, nobody listens.
    const { renameSync } = await import("node:fs");
    renameSync(path, `${path}.kept`);
    await new Promise((resolve) => dead.close(resolve));
    renameSync(`${path}.kept`, path);
    await open(t, { endpoints: [unix(path)] });
    assert.equal((await request("http://x/", { socketPath: path })).body, "hello");
  });

  it("of a living server are left alone", async (t) => {
    const path = join(folderFor(t), "x.sock");
    await open(t, { endpoints: [unix(path)] });
    await assert.rejects(open(t, { endpoints: [unix(path)] }), {
      code: "failed-precondition",
      message: /another server answers on/,
    });
    assert.equal((await request("http://x/", { socketPath: path })).body, "hello");
  });

  it("are never made in the place of another file, nor at a path that is too long", async (t) => {
    const path = join(folderFor(t), "data");
    writeFileSync(path, "precious");
    await assert.rejects(open(t, { endpoints: [unix(path)] }), /exists and is no socket/);
    assert.equal(statSync(path).size, 8);
    await assert.rejects(open(t, { endpoints: [unix(`/tmp/${"x".repeat(120)}`)] }), {
      code: "invalid-argument",
    });
  });
});

describe("requests that cost too much", () => {
  it("with 100,000 headers are answered 431", async (t) => {
    const { port, url } = await open(t);
    const many = Array.from({ length: 100_000 }, (_, index) => `H${index}: v\r\n`).join("");
    const answer = await talk({ port }, (socket) => void socket.write(head(`${many}\r\n`)));
    assert.match(answer, /^HTTP\/1\.1 431 /);
    assert.equal((await request(url)).status, 200);
  });

  it("with more than 1,000 short headers are answered 431, not cut short", async (t) => {
    const { port } = await open(t, { handler: (_, res) => res.end("seen") });
    const some = (count: number): string => "a:b\r\n".repeat(count);
    const of = (count: number): Promise<string> =>
      talk(
        { port },
        (socket) => void socket.write(head(`Connection: close\r\n${some(count)}\r\n`)),
      );
    assert.match(await of(1_100), /^HTTP\/1\.1 431 .*more than 1000 headers/s);
    assert.match(await of(900), /^HTTP\/1\.1 200 /);
  });

  it("with a header of 100 KiB are answered 431, one of 40 KiB is taken", async (t) => {
    const { port } = await open(t);
    const of = (size: number): Promise<string> =>
      talk(
        { port },
        (socket) => void socket.write(head(`Connection: close\r\nA: ${"x".repeat(size)}\r\n\r\n`)),
      );
    assert.match(await of(100 * 1024), /^HTTP\/1\.1 431 /);
    assert.match(await of(40 * 1024), /^HTTP\/1\.1 200 /);
  });

  it("that trickle in are answered 408 and cut", async (t) => {
    const { port } = await open(t);
    const started = Date.now();
    const slowHead = await talk({ port }, (socket) => {
      socket.write(head());
      const drip = setInterval(() => socket.write("A: b\r\n"), 200);
      socket.once("close", () => clearInterval(drip));
    });
    assert.match(slowHead, /^HTTP\/1\.1 408 /);
    const slowBody = await talk(
      { port },
      (socket) => void socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na"),
    );
    assert.match(slowBody, /^HTTP\/1\.1 408 /);
    assert.ok(Date.now() - started < 15_000);
  });

  it("that are no HTTP are answered 400 in words", async (t) => {
    const { port, url } = await open(t);
    for (const text of ["\x16\x03\x01\x02\x00\x01", "hello\r\n\r\n", `GET / HTTP/9\r\n\r\n`])
      assert.match(
        await talk({ port }, (socket) => void socket.write(text)),
        /^HTTP\/1\.1 400 .*not HTTP/s,
      );
    assert.equal((await request(url)).status, 200);
  });

  it("beyond the number of connections are refused, and the others live on", async (t) => {
    const { port, url } = await open(t, { limits: { maxConnections: 2 } });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    t.after(() => agent.destroy());
    assert.equal((await request(url, { agent })).status, 200);
    let isOpen = false;
    const idle = talk({ port }, () => void (isOpen = true));
    await until(() => isOpen, "the second connection is open");
    await assert.rejects(request(url, { agent: false }));
    assert.equal((await request(url, { agent })).status, 200);
    await idle;
    assert.equal((await request(url, { agent: false })).status, 200);
  });
});

describe("connections", () => {
  it("that the client has half closed still get their answer", async (t) => {
    const { port } = await open(t, {
      handler: (_, res) => void setTimeout(() => res.end("late"), 100),
    });
    const answer = await talk({ port }, (socket) => void socket.end(head("\r\n")));
    assert.match(answer, /late$/);
  });

  it("that break off in the middle leave nothing behind", async (t) => {
    let running = 0;
    const { port, listeners } = await open(t, {
      handler: (req, res) => {
        running += 1;
        res.once("close", () => (running -= 1));
        req.resume();
      },
    });
    await talk({ port }, async (socket) => {
      socket.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na");
      await until(() => running === 1, "the request runs");
      socket.destroy();
    });
    await until(() => running === 0, "the request ends");
    await listeners.close(0);
  });
});

describe("a stop", () => {
  it("lets running requests finish and does not wait for idle connections", async (t) => {
    const { listeners, url } = await open(t, {
      handler: (_, res) => void setTimeout(() => res.end("finished"), 300),
    });
    const agent = new Agent({ keepAlive: true });
    t.after(() => agent.destroy());
    await request(url, { agent });
    const running = request(url, { agent: false });
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
    const started = Date.now();
    await listeners.close(10_000);
    assert.ok(Date.now() - started < 3_000, "it waited for an idle connection");
    assert.equal((await running).body, "finished");
    await assert.rejects(request(url, { agent: false }), { code: "ECONNREFUSED" });
  });

  it("cuts what is not done in time, and connections that never said anything", async (t) => {
    const { listeners, url, port } = await open(t, { handler: () => {} });
    const hanging = assert.rejects(request(url, { agent: false }));
    const silent = talk({ port }, () => {});
    await new Promise((resolve) => {
      setTimeout(resolve, 100);
    });
    await listeners.close(200);
    await hanging;
    await silent;
  });

  it("new limits count for new requests", async (t) => {
    const { listeners, url, port } = await open(t);
    let isOpen = false;
    const idle = talk({ port }, () => void (isOpen = true));
    await until(() => isOpen, "a connection is open");
    listeners.reload({ ...LIMITS, maxConnections: 1 });
    await assert.rejects(request(url, { agent: false }));
    listeners.reload(LIMITS);
    assert.equal((await request(url, { agent: false })).status, 200);
    await idle;
  });
});

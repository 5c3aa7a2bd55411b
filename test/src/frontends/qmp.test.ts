/** QMP over its socket and over HTTP; exports are of an exporter that keeps them in memory. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { SILENT, defineExporter, listenForQmp } from "@libstorage/server";
import type { Exporter, QmpSocket } from "@libstorage/server";
import { missing } from "../exporters/private-host.js";
import { QmpClient } from "./qmp-client.js";
import { mocks, startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

/** Who uses an export, by its id, as the test says. */
const users = new Map<string, string>();

function remembering(name: string) {
  return defineExporter({
    name,
    config: v.object({}),
    open: async (): Promise<Exporter> => ({
      name,
      sources: ["none"],
      plan: async ({ id }) => ({ deviceName: `/dev/${id}`, fields: {} }),
      export: async () => {},
      unexport: async () => {},
      restore: async () => [],
      sessions: async () => [],
      abilities: async () => [],
      close: async () => {},
      doors: {
        plan: async (volume, { options, exportID }) => {
          if (options.description === "refuse")
            throw new StorageError("failed-precondition", `volume ${volume.id} is refused`);
          return { deviceName: `${name}:${volume.id}`, fields: { socket: `/none/${exportID}` } };
        },
        update: async () => {},
        userOf: async ({ attachment }) => users.get(attachment.fields?.["exportID"] ?? ""),
        hide: async () => {},
      },
    }),
  });
}

function configOf(folder: string): string {
  return `
libstorage:
  server:
    qmp:
      socket: ${folder}/qmp.sock
      socketFolder: ${folder}/sockets
    services:
      one: {driver: mock, exporter: nbd, mock: {seed: false}}
      two: {driver: mock, mock: {seed: false}}
`;
}

const exporters = { nbd: remembering("nbd") };

describe("QMP", () => {
  let folder: string;
  let server: RestServer;
  let socket: QmpSocket;
  let path: string;
  let volumes: readonly string[];
  const clients: QmpClient[] = [];

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "ls-qmp-"));
    path = join(folder, "qmp.sock");
    server = await startRest(configOf(folder), { exporters });
    assert.ok(server.app.qmp !== undefined);
    socket = await listenForQmp(server.app.qmp, path, SILENT);
    const made: string[] = [];
    for (const name of ["a", "b"]) {
      const { service } = server.app;
      made.push((await service.volumeCreate({ service: "one" }, { name, size: 1 }, {})).id);
    }
    volumes = made;
  });
  afterEach(async () => {
    users.clear();
    for (const client of clients.splice(0)) client.close();
    const { service } = server.app;
    for (const { id = "" } of await service.exportsByService({ service: "one" }, undefined, {}))
      await service.exportRemove({ service: "one", exportID: id, mode: "hard" }, undefined, {});
    const client = await QmpClient.ready(path);
    await client.execute("nbd-server-stop");
    client.close();
  });
  after(async () => {
    await socket.close();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const open = async (): Promise<QmpClient> => {
    const client = await QmpClient.open(path);
    clients.push(client);
    return client;
  };
  const ready = async (): Promise<QmpClient> => {
    const client = await QmpClient.ready(path);
    clients.push(client);
    return client;
  };
  const nbdStart = (client: QmpClient) =>
    client.execute("nbd-server-start", {
      addr: { type: "unix", data: { path: join(folder, "sockets/nbd.sock") } },
    });
  const add = (client: QmpClient, id: string, node: string | undefined, more: object = {}) =>
    client.execute("block-export-add", { type: "nbd", id, "node-name": node, ...more });
  const error = (desc: string, cls = "GenericError") => ({ error: { class: cls, desc } });

  it("greets, and waits for the capabilities", async () => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const client = await open();
    const [greeting] = client.messages;
    assert.deepEqual(greeting?.QMP?.capabilities, []);
    assert.deepEqual(
      await client.execute("query-commands"),
      error("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound"),
    );
    assert.deepEqual(await client.ask({ execute: "qmp_capabilities", id: 7 }), {
      return: {},
      id: 7,
    });
    assert.deepEqual(
      await client.execute("qmp_capabilities"),
      error("Capabilities negotiation is already complete, command ignored", "CommandNotFound"),
    );
  });

  it("does not take a capability that it did not offer", async () => {
    const client = await open();
    const refused = await client.execute("qmp_capabilities", { enable: ["oob"] });
    assert.equal(refused.error?.class, "GenericError");
    assert.equal((await client.execute("query-version")).error?.class, "CommandNotFound");
  });

  it("knows its commands, and describes each", async () => {
    const client = await ready();
    const { return: commands } = await client.execute("query-commands");
    const names = (commands as { name: string }[]).map(({ name }) => name);
    for (const name of [
      "qmp_capabilities",
      "query-commands",
      "nbd-server-start",
      "nbd-server-stop",
      "nbd-server-add",
      "nbd-server-remove",
      "block-export-add",
      "block-export-del",
      "query-block-exports",
    ])
      assert.ok(names.includes(name), name);
    type Entry = Record<string, unknown> & { "meta-type": string };
    const { return: schema } = await client.execute("query-qmp-schema");
    const entries = schema as Entry[];
    const described = entries.filter((one) => one["meta-type"] === "command");
    assert.deepEqual(new Set(described.map(({ name }) => name)), new Set(names));
    const types = new Set(
      entries.filter((one) => one["meta-type"] !== "command").map(({ name }) => name),
    );
    for (const { "arg-type": args, "ret-type": returned } of described)
      assert.ok(types.has(args) && types.has(returned), `${String(args)} ${String(returned)}`);
  });

  it("echoes any id, and takes several commands in one piece and one command in many", async () => {
    const client = await ready();
    const ids = [null, 0, "x", { a: [1] }, [1], true];
    client.send(ids.map((id) => JSON.stringify({ execute: "query-block-exports", id })).join(""));
    for (const id of ids) assert.deepEqual(await client.reply(), { return: [], id });
    const text = JSON.stringify({ execute: "query-block-exports", id: "é\n" });
    for (const byte of Buffer.from(`${text.slice(0, 5)}\n${text.slice(5)}`.replace("\n", ""))) {
      client.send(Buffer.from([byte]));
      await sleep(0);
    }
    assert.deepEqual(await client.reply(), { return: [], id: "é\n" });
    client.send('{"execute":\n\n\t"query-block-exports"}\n');
    assert.deepEqual(await client.reply(), { return: [] });
  });

  it("says what is no QMP, and goes on with the next line", async () => {
    const client = await ready();
    const cases: readonly (readonly [string | Buffer, RegExp])[] = [
      ["not json\n", /^JSON parse error/],
      ['{"execute":"query-block-exports",}\n', /^JSON parse error/],
      [Buffer.from('{"execute":"\xff\xfe"}\n', "latin1"), /^JSON parse error/],
      ["[1]\n", /^QMP input must be a JSON object$/],
      ["7 \n", /^QMP input must be a JSON object$/],
      ['{"execute":1}\n', /^QMP input member 'execute' must be a string$/],
      ['{"foo":1}\n', /^QMP input member 'foo' is unexpected$/],
      ['{"exec-oob":"x"}\n', /^QMP input member 'exec-oob' is unexpected$/],
      ['{"id":1}\n', /^QMP input lacks member 'execute'$/],
      [
        '{"execute":"query-version","arguments":[]}\n',
        /^QMP input member 'arguments' must be an object$/,
      ],
      [`${"[".repeat(2000)}\n`, /^JSON nesting depth limit exceeded$/],
    ];
    for (const [bytes, desc] of cases) {
      client.send(bytes);
      const reply = await client.reply();
      assert.match(reply.error?.desc ?? "", desc, String(bytes).slice(0, 60));
      assert.deepEqual(
        await client.ask({ execute: "query-block-exports", id: 1 }),
        { return: [], id: 1 },
        String(bytes).slice(0, 60),
      );
    }
  });

  it("takes 100 MB that never become a command for little memory, and goes on", async () => {
    const client = await ready();
    const piece = Buffer.alloc(1024 * 1024, "x");
    const before = process.memoryUsage.rss();
    let most = 0;
    client.send('{"execute":"');
    for (let sent = 0; sent < 100; sent += 1) {
      if (!client.socket.write(piece))
        await new Promise((resolve) => client.socket.once("drain", resolve));
      most = Math.max(most, process.memoryUsage.rss());
    }
    client.send('"}\n');
    assert.deepEqual(await client.reply(), error("JSON token size limit exceeded"));
    assert.deepEqual(await client.execute("query-block-exports"), { return: [] });
    const grown = (most - before) / 1024 ** 2;
    assert.ok(grown < 60, `${grown} MiB`);
  });

  it("does not read from a client that does not read", async () => {
    const client = await ready();
    client.socket.pause();
    const commands = '{"execute":"query-qmp-schema"}\n'.repeat(20_000);
    client.send(commands);
    await sleep(500);
    assert.ok(client.socket.writableLength > 0, "everything was taken in");
    client.close();
    const other = await ready();
    assert.deepEqual(await other.execute("query-block-exports"), { return: [] });
  });

  it("answers what was asked before the client closed its half", async () => {
    const client = await ready();
    client.socket.end('{"execute":"query-block-exports","id":1}{"execute":"query-version"}');
    assert.deepEqual(await client.reply(), { return: [], id: 1 });
    assert.notEqual((await client.reply()).return, undefined);
    const cut = await ready();
    cut.socket.end('{"execute":');
    assert.match((await cut.reply()).error?.desc ?? "", /^JSON parse error/);
  });

  it("checks arguments in QEMU's words, and changes nothing", async () => {
    const client = await ready();
    const [node] = volumes;
    await nbdStart(client);
    const cases: readonly (readonly [string, object | undefined, string])[] = [
      ["block-export-add", undefined, "Parameter 'type' is missing"],
      ["block-export-add", { type: "nbd" }, "Parameter 'id' is missing"],
      [
        "block-export-add",
        { type: "bogus", id: "e", "node-name": node },
        "Parameter 'type' does not accept value 'bogus'",
      ],
      [
        "block-export-add",
        { type: "nbd", id: 1, "node-name": node },
        "Invalid parameter type for 'id', expected: string",
      ],
      [
        "block-export-add",
        { type: "nbd", id: "e", "node-name": node, writable: "yes" },
        "Invalid parameter type for 'writable', expected: boolean",
      ],
      [
        "block-export-add",
        { type: "nbd", id: "e", "node-name": node, growable: true },
        "Parameter 'growable' is unexpected",
      ],
      ["block-export-add", { type: "nbd", id: "1e", "node-name": node }, "Invalid block export id"],
      [
        "block-export-add",
        { type: "nbd", id: "e", "node-name": "none" },
        "Cannot find device='' nor node-name='none'",
      ],
      [
        "block-export-add",
        { type: "nbd", id: "e", "node-name": node, iothread: "x" },
        'iothread "x" not found',
      ],
      [
        "block-export-add",
        { type: "vhost-user-blk", id: "e", "node-name": node, addr: { type: "unix" } },
        "Parameter 'addr.path' is missing",
      ],
      ["nbd-server-add", { device: "none" }, "Cannot find device='none' nor node-name='none'"],
      ["block-export-del", { id: "none" }, "Export 'none' is not found"],
      [
        "block-export-del",
        { id: "none", mode: 1 },
        "Invalid parameter type for 'mode', expected: string",
      ],
      ["query-block-exports", { x: 1 }, "Parameter 'x' is unexpected"],
    ];
    for (const [command, args, desc] of cases)
      assert.deepEqual(await client.execute(command, args), error(desc));
    assert.deepEqual(
      await client.execute("nope"),
      error("The command nope has not been found", "CommandNotFound"),
    );
    assert.deepEqual(await client.execute("query-block-exports"), { return: [] });
  });

  it("adds and removes exports through the core: record, journal, access table, event", async () => {
    const client = await ready();
    const watcher = await ready();
    const [node = ""] = volumes;
    assert.deepEqual(await add(client, "e1", node), error("NBD server not running"));
    assert.deepEqual(await nbdStart(client), { return: {} });
    assert.deepEqual(await nbdStart(client), error("NBD server already running"));
    assert.deepEqual(await add(client, "e1", node, { name: "vol", writable: true }), {
      return: {},
    });
    assert.deepEqual((await client.execute("query-block-exports")).return, [
      { "node-name": node, "shutting-down": false, type: "nbd", id: "e1" },
    ]);
    const listed = await server.app.service.exportsByService({ service: "one" }, undefined, {});
    assert.deepEqual(
      listed.map(({ id, writable, volumeID }) => [id, writable, volumeID]),
      [["e1", true, node]],
    );
    assert.deepEqual(
      await add(client, "e1", volumes[1]),
      error("Block export id 'e1' is already in use"),
    );
    assert.deepEqual(
      await add(client, "e2", volumes[1], { name: "vol" }),
      error("NBD server already has export named 'vol'"),
    );
    const second = await add(client, "e2", node, { writable: true });
    assert.match(second.error?.desc ?? "", /e1/, "one writer at a time, and who it is");
    users.set("e1", "10.0.0.7");
    const used = await client.execute("block-export-del", { id: "e1" });
    assert.match(used.error?.desc ?? "", /^export 'e1' still in use: .*10\.0\.0\.7/);
    client.send(
      `${JSON.stringify({ execute: "block-export-del", arguments: { id: "e1", mode: "hard" }, id: "z" })}\n`,
    );
    const event = await client.next();
    assert.equal(event.event, "BLOCK_EXPORT_DELETED");
    assert.deepEqual(event.data, { id: "e1" });
    assert.ok(Math.abs((event.timestamp?.seconds ?? 0) - Date.now() / 1000) < 60);
    assert.deepEqual(await client.next(), { return: {}, id: "z" });
    const told = watcher.messages.filter((one) => one.event !== undefined);
    assert.deepEqual(
      told.map(({ data }) => data),
      [{ id: "e1" }],
    );
    const entries = [...server.app.storage.journal.since(0)];
    const phases = entries
      .filter(({ exportID }) => exportID === "e1")
      .map(({ operation, phase, via }) => [operation, phase, via]);
    assert.deepEqual(phases, [
      ["exportAdd", "intent", "qmp"],
      ["exportAdd", "end", "qmp"],
      ["exportRemove", "intent", "qmp"],
      ["exportRemove", "end", "qmp"],
    ]);
  });

  it("knows the old commands for NBD, and ends all with its server", async () => {
    const client = await ready();
    await nbdStart(client);
    const [a = "", b = ""] = volumes;
    assert.deepEqual(await client.execute("nbd-server-add", { device: a }), { return: {} });
    assert.deepEqual(
      await client.execute("nbd-server-add", { device: a }),
      error(`Block export id '${a}' is already in use`),
    );
    assert.deepEqual(await client.execute("nbd-server-add", { device: b, name: "other" }), {
      return: {},
    });
    assert.deepEqual(await client.execute("nbd-server-remove", { name: "other" }), { return: {} });
    assert.deepEqual(
      await client.execute("nbd-server-remove", { name: "other" }),
      error("Export 'other' is not found"),
    );
    assert.deepEqual(await client.execute("nbd-server-stop"), { return: {} });
    assert.deepEqual((await client.execute("query-block-exports")).return, []);
    assert.deepEqual(await client.execute("nbd-server-stop"), error("NBD server not running"));
    assert.ok(!existsSync(join(folder, "sockets/nbd.sock")));
  });

  it("tells of exports that go with their volume", async () => {
    const client = await ready();
    await nbdStart(client);
    const { service } = server.app;
    const { id } = await service.volumeCreate({ service: "one" }, { name: "gone", size: 1 }, {});
    await add(client, "doomed", id);
    await service.volumeRemove({ service: "one", volumeID: id, force: true }, undefined, {});
    const event = await client.next();
    assert.deepEqual([event.event, event.data], ["BLOCK_EXPORT_DELETED", { id: "doomed" }]);
  });

  it("refuses addresses that are taken, foreign, too long, open to others, or need credentials", async () => {
    const client = await ready();
    const taken = join(folder, "sockets/file");
    mkdirSync(join(folder, "sockets"), { recursive: true });
    writeFileSync(taken, "mine");
    const tcp = createServer();
    await new Promise<void>((resolve) => {
      tcp.listen(0, "127.0.0.1", resolve);
    });
    const { port } = tcp.address() as { port: number };
    const unix = (socketPath: string) => ({ addr: { type: "unix", data: { path: socketPath } } });
    const inet = (host: string, at: string) => ({
      addr: { type: "inet", data: { host, port: at } },
    });
    const cases: readonly (readonly [object, RegExp])[] = [
      [unix(taken), /exists and is no socket/],
      [unix(join(folder, "elsewhere.sock")), /is not in .*sockets/],
      [unix(`${folder}/sockets/../elsewhere.sock`), /is not in .*sockets/],
      [unix(path), /is not in .*sockets/],
      [unix(join(folder, "sockets", `${"n".repeat(120)}.sock`)), /longer than the 107 bytes/],
      [inet("127.0.0.1", String(port)), /EADDRINUSE/],
      [inet("0.0.0.0", "0"), /can be reached by other hosts/],
      [inet("127.0.0.1", "x"), /Servname not supported/],
      [{ ...inet("127.0.0.1", "0"), "tls-creds": "tls0" }, /^No TLS credentials with id 'tls0'$/],
      [{ addr: { type: "fd", data: { str: "3" } } }, /Only socket address types/],
      [{ addr: { type: "unix", path: taken } }, /^Parameter 'addr.data' is missing$/],
    ];
    for (const [args, desc] of cases) {
      const reply = await client.execute("nbd-server-start", args);
      assert.match(reply.error?.desc ?? "", desc, JSON.stringify(args));
    }
    assert.equal(statSync(taken).size, 4);
    tcp.close();
    assert.deepEqual(await client.execute("nbd-server-stop"), error("NBD server not running"));
  });

  it("never takes over the path of another socket or file", async () => {
    const { qmp } = server.app;
    assert.ok(qmp !== undefined);
    await assert.rejects(listenForQmp(qmp, path, SILENT), /another server answers/);
    const file = join(folder, "file");
    writeFileSync(file, "mine");
    await assert.rejects(listenForQmp(qmp, file, SILENT), /is no socket/);
    await assert.rejects(
      listenForQmp(qmp, join(folder, "n".repeat(120)), SILENT),
      /longer than the 107 bytes/,
    );
  });

  it("is spoken over HTTP: commands in the body, the conversation in the answer", async () => {
    const body = ["qmp_capabilities", "query-block-exports"]
      .map((execute, id) => JSON.stringify({ execute, id }))
      .join("");
    const answer = await server.ask("POST", "/qmp", { body });
    assert.equal(answer.status, 200);
    const [greeting, ...replies] = answer.text
      .trim()
      .split("\r\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.ok(greeting?.["QMP"] !== undefined);
    assert.deepEqual(replies, [
      { return: {}, id: 0 },
      { return: [], id: 1 },
    ]);
    const plain = await startRest(mocks());
    try {
      assert.equal((await plain.ask("POST", "/qmp", { body })).status, 501);
    } finally {
      await plain.close();
    }
  });

  it("is understood by socat", { skip: missing("socat") }, async () => {
    const socat = spawn("socat", ["-t5", "-", `UNIX-CONNECT:${path}`]);
    let stdout = "";
    socat.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    socat.stdin.end('{"execute":"qmp_capabilities"}\n{"execute":"query-block-exports"}\n');
    const [code] = (await once(socat, "close")) as [number];
    assert.equal(code, 0);
    assert.match(stdout, /"QMP"/);
    assert.match(stdout, /"return":\[\]/);
  });
});

/** QMP beside QEMU's own storage daemon: the same commands, the same answers; and real clients through it. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { DRIVERS, EXPORTERS, SILENT, listenForQmp } from "@libstorage/server";
import type { QmpSocket } from "@libstorage/server";
import { toolsMissing } from "../drivers/image-place.js";
import { freePort } from "../exporters/iscsi-client.js";
import { accepted, hasNoDelay } from "../exporters/accepted.js";
import { Client } from "../exporters/client.js";
import { ended, run } from "../exporters/nbd-client.js";
import { QmpClient } from "./qmp-client.js";
import { startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

const skip = toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "nbdinfo");

const fuseMissing =
  (process.getuid?.() === 0 ? false : "FUSE mounts need root") ||
  (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

function configOf(folder: string): string {
  return `
libstorage:
  server:
    qmp:
      socket: ${folder}/qmp.sock
      socketFolder: ${folder}/s
    services:
      disks:
        driver: image
        exports: [nbd, fuse, vhost-user-blk]
        image: {root: ${folder}/root, format: raw}
        nbd: {listen: "127.0.0.1:0", folder: ${folder}/n}
        fuse: {folder: ${folder}/f}
        vhost-user-blk: {folder: ${folder}/v}
`;
}

class Host {
  readonly folder: string;
  readonly server: RestServer;
  readonly #socket: QmpSocket;

  private constructor(folder: string, server: RestServer, socket: QmpSocket) {
    this.folder = folder;
    this.server = server;
    this.#socket = socket;
  }

  static async open(folder: string): Promise<Host> {
    const options = { drivers: DRIVERS, exporters: EXPORTERS };
    // The home is the same for every server of the folder.
    const server = await startRest(configOf(folder), options, join(folder, "home"));
    assert.ok(server.app.qmp !== undefined);
    const socket = await listenForQmp(server.app.qmp, join(folder, "qmp.sock"), SILENT);
    return new Host(folder, server, socket);
  }

  get path(): string {
    return join(this.folder, "qmp.sock");
  }

  async volume(): Promise<string> {
    const { service } = this.server.app;
    const { id } = await service.volumeCreate({ service: "disks" }, { name: "v", size: 1 }, {});
    return id;
  }

  async close(): Promise<void> {
    await this.#socket.close();
    await this.server.close();
  }
}

describe("QMP and QEMU's storage daemon", { skip }, () => {
  let folder: string;
  let host: Host;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "lsq-"));
    mkdirSync(join(folder, "root"));
    host = await Host.open(folder);
  });
  afterEach(async () => {
    const client = await QmpClient.ready(host.path);
    const { return: left } = await client.execute("query-block-exports");
    for (const { id } of left as { id: string }[])
      await client.execute("block-export-del", { id, mode: "hard" });
    await client.execute("nbd-server-stop");
    client.close();
  });
  after(async () => {
    await host.close();
    await rm(folder, { recursive: true, force: true });
  });

  it("answer the same to the same", async () => {
    const node = await host.volume();
    const own = join(folder, "daemon");
    mkdirSync(own);
    const image = join(own, "disk.raw");
    writeFileSync(image, "");
    truncateSync(image, 1024 ** 2);
    const monitor = join(own, "qmp.sock");
    const daemon = spawn("qemu-storage-daemon", [
      "--chardev",
      `socket,id=qmp,path=${monitor},server=on,wait=off`,
      "--monitor",
      "chardev=qmp",
      "--blockdev",
      `driver=file,node-name=f0,filename=${image}`,
      "--blockdev",
      `driver=raw,node-name=${node},file=f0`,
    ]);
    try {
      while (!existsSync(monitor)) await sleep(20);
      const [theirs, ours] = [await QmpClient.open(monitor), await QmpClient.open(host.path)];
      for (const text of SAME) {
        const lines = text.replaceAll("NODE", node).replaceAll("\n", " ").replaceAll("SEND", "\n");
        theirs.send(`${lines.replaceAll("FOLDER", own).replaceAll("VHOST", own)}\n`);
        const [vhost = ""] = readdirSync(join(folder, "v"));
        ours.send(
          `${lines.replaceAll("FOLDER", join(folder, "s")).replaceAll("VHOST", join(folder, "v", vhost))}\n`,
        );
        const expected = await theirs.reply();
        assert.deepEqual(await ours.reply(), expected, text);
      }
      const events = (client: QmpClient) =>
        client.messages.flatMap(({ event, data }) => (event === undefined ? [] : [[event, data]]));
      assert.deepEqual(events(ours), events(theirs));
      assert.ok(events(ours).length >= 2);
      theirs.close();
      ours.close();
    } finally {
      daemon.kill("SIGKILL");
    }
  });

  it("a node that can only be read is not exported as writable, and nothing is left of it", async () => {
    const iso = Buffer.alloc(64 * 1024);
    iso.write("\x01CD001", 32_768, "latin1");
    writeFileSync(join(folder, "root/import/x.iso"), iso);
    const opts = { import: "x.iso", importFormat: "iso" };
    const { service } = host.server.app;
    const { id } = await service.volumeCreate({ service: "disks" }, { name: "x", opts }, {});
    const client = await QmpClient.ready(host.path);
    const addr = { type: "unix", data: { path: join(folder, "s/iso.sock") } };
    await client.execute("nbd-server-start", { addr });
    // What QEMU 7.2's own daemon says.
    const desc = "Cannot export read-only node as writable";
    const [vhost = ""] = readdirSync(join(folder, "v"));
    const kinds = [
      { type: "nbd", name: "x" },
      { type: "vhost-user-blk", addr: { type: "unix", path: join(folder, "v", vhost, "x.sock") } },
    ];
    for (const kind of kinds) {
      const wanted = { ...kind, id: "x", "node-name": id, writable: true };
      const { error } = await client.execute("block-export-add", wanted);
      assert.deepEqual(error, { class: "GenericError", desc }, kind.type);
    }
    assert.deepEqual(await client.execute("query-block-exports"), { return: [] });
    const readable = { type: "nbd", id: "x", "node-name": id, name: "x" };
    assert.deepEqual(await client.execute("block-export-add", readable), { return: {} });
    client.close();
  });

  it("serve a volume to NBD clients that are not ours, under the name that was asked for", async () => {
    const node = await host.volume();
    const client = await QmpClient.ready(host.path);
    const socket = join(folder, "s/nbd.sock");
    const addr = { type: "unix", data: { path: socket } };
    assert.deepEqual(await client.execute("nbd-server-start", { addr }), { return: {} });
    const added = await client.execute("block-export-add", {
      type: "nbd",
      id: "e1",
      "node-name": node,
      name: "vol",
      writable: true,
      description: "a disk",
    });
    assert.deepEqual(added, { return: {} });
    const uri = `nbd+unix:///vol?socket=${socket}`;
    const info = await run("nbdinfo", "--json", uri);
    const [seen] = (JSON.parse(info) as { exports: Record<string, unknown>[] }).exports;
    assert.equal(seen?.["export-size"], 1024 ** 3);
    assert.equal(seen["description"], "a disk");
    assert.match(await run("nbdinfo", "--list", `nbd+unix:///?socket=${socket}`), /export="vol"/);
    await run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 0 64k", "-c", "flush", uri);
    const read = await run("qemu-io", "-f", "raw", "-c", "read -P 0x5a 0 64k", uri);
    assert.ok(!read.includes("verification failed"), read);
    assert.notEqual((await ended("nbdinfo", `nbd+unix:///other?socket=${socket}`)).status, 0);
    const removed = await client.execute("block-export-del", { id: "e1" });
    assert.deepEqual(removed, { return: {} });
    assert.notEqual((await ended("nbdinfo", uri)).status, 0);
    assert.deepEqual(await client.execute("nbd-server-stop"), { return: {} });
    client.close();
  });

  it(
    "show a volume over a file that is there, as QEMU demands, and leave that file",
    { skip: fuseMissing },
    async () => {
      const node = await host.volume();
      const client = await QmpClient.ready(host.path);
      const [own = ""] = readdirSync(join(folder, "f"));
      const mountpoint = join(folder, "f", own, "mine.img");
      writeFileSync(mountpoint, "");
      const wanted = { type: "fuse", id: "fu", "node-name": node, mountpoint, writable: true };
      assert.deepEqual(await client.execute("block-export-add", wanted), { return: {} });
      assert.equal(statSync(mountpoint).size, 1024 ** 3);
      const refused = await client.execute("nbd-server-remove", { name: "fu" });
      assert.equal(refused.error?.desc, "Block export 'fu' is not an NBD export");
      const second = { ...wanted, id: "fu2", "node-name": await host.volume() };
      const taken = await client.execute("block-export-add", second);
      assert.match(taken.error?.desc ?? "", /is the file of an export/);
      assert.deepEqual(await client.execute("block-export-del", { id: "fu" }), { return: {} });
      assert.equal(statSync(mountpoint).size, 0, "it is left");
      assert.deepEqual(await client.execute("block-export-add", wanted), { return: {} });
      const user = openSync(mountpoint, "r");
      const hiding = { id: "fu", mode: "hide" };
      assert.deepEqual(await client.execute("block-export-del", hiding), { return: {} });
      assert.equal(statSync(mountpoint).size, 0, "new users find it empty");
      const early = await client.execute("block-export-add", second);
      assert.match(early.error?.desc ?? "", /perhaps on its way out/);
      closeSync(user);
      while (((await client.execute("query-block-exports")).return as unknown[]).length > 0)
        await sleep(50);
      writeFileSync(mountpoint, "precious");
      const full = await client.execute("block-export-add", wanted);
      assert.match(full.error?.desc ?? "", /is not an empty file/);
      writeFileSync(mountpoint, "");
      chownSync(mountpoint, 65_534, 65_534);
      const foreign = await client.execute("block-export-add", wanted);
      assert.match(foreign.error?.desc ?? "", /belongs to another user/);
      rmSync(mountpoint);
      assert.deepEqual(await client.execute("block-export-add", wanted), { return: {} });
      assert.deepEqual(await client.execute("block-export-del", { id: "fu" }), { return: {} });
      assert.equal(existsSync(mountpoint), false, "what the server made goes");
      client.close();
    },
  );

  it("keep a connected client from a safe removal, and drop it with a hard one", async () => {
    const node = await host.volume();
    const client = await QmpClient.ready(host.path);
    const socket = join(folder, "s/nbd.sock");
    await client.execute("nbd-server-start", { addr: { type: "unix", data: { path: socket } } });
    await client.execute("block-export-add", { type: "nbd", id: "used", "node-name": node });
    const uri = `nbd+unix:///${node}?socket=${socket}`;
    const user = spawn("qemu-io", ["-r", "-f", "raw", uri], { stdio: ["pipe", "pipe", "pipe"] });
    let said = "";
    user.stdout.on("data", (data) => (said += String(data)));
    user.stderr.on("data", (data) => (said += String(data)));
    user.stdin.write("read 0 4k\n");
    while (!said.includes("ops")) await sleep(20);
    const refused = await client.execute("block-export-del", { id: "used" });
    assert.match(refused.error?.desc ?? "", /^export 'used' still in use/);
    assert.deepEqual(await client.execute("block-export-del", { id: "used", mode: "hard" }), {
      return: {},
    });
    said = "";
    user.stdin.on("error", () => {});
    user.stdin.write("read 0 4k\n");
    while (!/failed|not connected|error/i.test(said) && user.exitCode === null) await sleep(20);
    assert.ok(!said.includes("ops"), said);
    user.kill("SIGKILL");
    assert.deepEqual(await client.execute("nbd-server-stop"), { return: {} });
    client.close();
  });

  it("serve NBD over TCP without a delay of small answers", async () => {
    const node = await host.volume();
    const client = await QmpClient.ready(host.path);
    const port = await freePort();
    const addr = { type: "inet", data: { host: "127.0.0.1", port: String(port) } };
    assert.deepEqual(await client.execute("nbd-server-start", { addr }), { return: {} });
    await client.execute("block-export-add", { type: "nbd", id: "tcp", "node-name": node });
    await accepted(async (sockets) => {
      const user = new Client("-r", `nbd://127.0.0.1:${port}/${node}`);
      await user.says("read 0 4k", /read 4096/);
      assert.deepEqual(sockets.map(hasNoDelay), [true]);
      await user.end();
    });
    client.close();
  });

  it("serve again, at the same address, once the server has been started anew", async () => {
    const node = await host.volume();
    let client = await QmpClient.ready(host.path);
    const socket = join(folder, "s/nbd.sock");
    await client.execute("nbd-server-start", { addr: { type: "unix", data: { path: socket } } });
    await client.execute("block-export-add", { type: "nbd", id: "kept", "node-name": node });
    client.close();
    await host.close();
    host = await Host.open(folder);
    const uri = `nbd+unix:///${node}?socket=${socket}`;
    assert.match(await run("nbdinfo", uri), /export-size: 1073741824/);
    client = await QmpClient.ready(host.path);
    const { return: exports } = await client.execute("query-block-exports");
    assert.deepEqual(exports, [
      { "node-name": node, "shutting-down": false, type: "nbd", id: "kept" },
    ]);
    assert.deepEqual(await client.execute("nbd-server-stop"), { return: {} });
    assert.deepEqual((await client.execute("query-block-exports")).return, []);
    client.close();
  });
});

/** What both are told, each one reply long. */
const SAME: readonly string[] = [
  '{"execute":"query-commands"}',
  '{"execute":"nope","id":{"a":[1,null]}}',
  '{"execute":"qmp_capabilities","id":7}',
  '{"execute":"qmp_capabilities"}',
  '{"execute":"nope","id":{"a":1}}',
  '{"execute":1}',
  '{"foo":1}',
  "[1]",
  '{"execute":"query-block-exports","bogus":1}',
  '{"execute":"query-block-exports","arguments":[]}',
  '{"execute":"query-block-exports","arguments":{"x":1}}',
  '{"execute":"query-block-exports","arguments":{},"id":null}',
  '{"exec-oob":"query-block-exports"}',
  '{"execute":SEND"query-block-exports"}',
  '{"execute":"block-export-add"}',
  '{"execute":"block-export-add","arguments":{"type":"nbd"}}',
  '{"execute":"block-export-add","arguments":{"id":"e"}}',
  '{"execute":"block-export-add","arguments":{"type":"bogus","id":"e","node-name":"NODE"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":1,"node-name":"NODE"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"NODE","writable":"yes"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"NODE","growable":true}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"NODE"}}',
  '{"execute":"block-export-add","arguments":{"type":"vhost-user-blk","id":"e","node-name":"NODE","addr":{"type":"unix"}}}',
  '{"execute":"block-export-add","arguments":{"type":"vhost-user-blk","id":"e","node-name":"NODE","addr":{"type":"unix","path":1}}}',
  '{"execute":"block-export-add","arguments":{"type":"vhost-user-blk","id":"e","node-name":"NODE","addr":"x"}}',
  '{"execute":"block-export-add","arguments":{"type":"vhost-user-blk","id":"e","node-name":"NODE","addr":{"type":"unix","path":"/v"},"num-queues":70000}}',
  '{"execute":"block-export-add","arguments":{"type":"vhost-user-blk","id":"e","node-name":"NODE","addr":{"type":"unix","path":"/v"},"num-queues":0}}',
  '{"execute":"block-export-add","arguments":{"type":"fuse","id":"e","node-name":"NODE","mountpoint":"/m","allow-other":"maybe"}}',
  '{"execute":"nbd-server-stop"}',
  '{"execute":"nbd-server-add","arguments":{"device":"NODE"}}',
  '{"execute":"nbd-server-remove","arguments":{"name":"NODE"}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","path":"FOLDER/n.sock"}}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"FOLDER/n.sock"}},"max-connections":-1}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"inet","data":{"host":"127.0.0.1","port":1}}}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"inet","data":{"host":"127.0.0.1","port":"x"}}}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"FOLDER/n.sock"}},"tls-creds":"tls0"}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"FOLDER/n.sock","bogus":1}}}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"FOLDER/n.sock"}}}}',
  '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"FOLDER/n.sock"}}}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"none"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"1e","node-name":"NODE"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"NODE","iothread":"x"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"NODE","name":"vol"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"NODE","name":"vol"}}',
  '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e2","node-name":"NODE","name":"vol"}}',
  '{"execute":"query-block-exports"}',
  '{"execute":"nbd-server-add","arguments":{"device":"none"}}',
  '{"execute":"nbd-server-add","arguments":{"device":"NODE","name":"n2"}}',
  '{"execute":"block-export-del","arguments":{"id":"none"}}',
  '{"execute":"block-export-del","arguments":{"id":"e","mode":1}}',
  '{"execute":"block-export-del","arguments":{"id":"e","mode":"bogus"}}',
  '{"execute":"block-export-del","arguments":{"id":"e","x":1}}',
  '{"execute":"block-export-del","arguments":{"id":"e"},"id":"z"}',
  '{"execute":"nbd-server-remove","arguments":{"name":"nope"}}',
  '{"execute":"block-export-add","arguments":{"type":"vhost-user-blk","id":"vu","node-name":"NODE","addr":{"type":"unix","path":"VHOST/u.sock"}}}',
  '{"execute":"nbd-server-remove","arguments":{"name":"vu"}}',
  '{"execute":"nbd-server-remove","arguments":{"name":"vu","mode":"hard"}}',
  '{"execute":"block-export-del","arguments":{"id":"vu"}}',
  '{"execute":"query-block-exports"}',
  '{"execute":"nbd-server-stop"}',
  '{"execute":"query-block-exports"}',
];

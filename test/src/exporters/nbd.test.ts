/** The nbd exporter over the image driver: real daemons, and clients that are not ours. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { EXPORTERS, makeCA, makeCertificate } from "@libstorage/server";
import type { Exporter, Hold, VolumeRecord } from "@libstorage/server";
import * as v from "valibot";
import { Fixture, attachmentOf, contextOf } from "../conformance/fixture.js";
import {
  checkPattern,
  diskOf,
  imageHarness,
  qemuIO,
  toolsMissing,
} from "../drivers/image-place.js";
import { loopMissing } from "../loop.js";
import { ended, io, run, uriOf } from "./nbd-client.js";
import { makeScratch } from "../faults/folders.js";

const MIB = 1024 ** 2;
const FACTS = { hostName: "host-b.example", addresses: ["127.0.0.1"] };

const skip = toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "nbdinfo", "nbdcopy");

interface Opened {
  readonly exporter: Exporter;
  readonly close: () => Promise<void>;
}

function configOf(folder: string, more: object = {}): unknown {
  return v.parse(EXPORTERS.nbd.config, { listen: "127.0.0.1:0", daemonFolder: folder, ...more });
}

describe("nbd", { skip }, () => {
  const scratch = makeScratch("nbd");
  const folder = join(scratch.path, "d");
  /** One for each service. */
  const folders = (): string[] =>
    existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];
  const daemons = (): string[] =>
    folders().flatMap((parent) => readdirSync(parent).map((name) => join(parent, name)));
  const opened: Exporter[] = [];
  let fixture: Fixture;

  before(async () => {
    fixture = await Fixture.open(imageHarness({ format: "qcow2", snapshots: "overlays" }, true));
  });
  after(async () => {
    for (const exporter of opened) await exporter.close();
    await fixture.driver.close();
    await fixture.place.close();
    assert.deepEqual(daemons(), [], "daemons are left");
    await scratch.remove();
  });

  async function openExporter(more: object = {}): Promise<Opened> {
    const context = { ...contextOf(), libFolder: scratch.path };
    const exporter = await EXPORTERS.nbd.open(configOf(folder, more), context);
    opened.push(exporter);
    return { exporter, close: () => exporter.close() };
  }

  let epoch = 0;
  let number = 0;

  function volume(format: string): Promise<VolumeRecord> {
    number += 1;
    return fixture.create(number, { fields: { format }, sizeBytes: 16 * MIB });
  }

  async function planned(exporter: Exporter, record: VolumeRecord, host = "host-b"): Promise<Hold> {
    epoch += 1;
    const wanted = { holder: { id: host, driver: "image", service: "" }, facts: FACTS, epoch };
    const { deviceName, fields } = await exporter.plan(record, wanted, contextOf());
    const attachment = attachmentOf(host, {
      deviceName,
      fields: { ...fields, exporter: "nbd" },
      epoch,
    });
    return { volume: record, attachment };
  }

  async function exported(exporter: Exporter, record: VolumeRecord, host?: string): Promise<Hold> {
    const hold = await planned(exporter, record, host);
    await exporter.export(hold, contextOf());
    return hold;
  }

  /** The daemons' processes. */
  function pids(): number[] {
    return daemons().map((one) => Number(readFileSync(join(one, "pid"), "utf8")));
  }

  const both: readonly string[] = ["raw", "qcow2"];

  for (const format of both)
    it(`a ${format} volume is written and read by NBD clients that are not ours`, async () => {
      const { exporter, close } = await openExporter();
      const record = await volume(format);
      const hold = await exported(exporter, record);
      const info = JSON.parse(await run("nbdinfo", "--json", uriOf(hold))) as {
        exports: { "export-size": number; is_read_only: boolean }[];
      };
      assert.equal(info.exports[0]?.["export-size"], 16 * MIB);
      assert.equal(info.exports[0]?.is_read_only, false);
      await io(hold, "write -P 0x42 1M 1M", "flush");
      await io(hold, "read -P 0x42 1M 1M", "read -P 0 4M 1M");
      await exporter.unexport(hold, contextOf());
      checkPattern(record, 0x42, 1);
      assert.deepEqual(pids(), [], "a daemon without exports has ended");
      assert.notEqual((await ended("nbdinfo", uriOf(hold))).status, 0);
      await close();
    });

  it("no second writer gets at an image that is exported, a raw one either", async () => {
    const { exporter, close } = await openExporter();
    for (const format of both) {
      const record = await volume(format);
      const hold = await exported(exporter, record);
      const second = qemuIO(record, "write -P 1 0 4k");
      assert.equal(second.ok, false);
      assert.match(second.text, /Failed to get (?:shared )?"\w+" lock/);
      await exporter.unexport(hold, contextOf());
      assert.ok(qemuIO(record, "write -P 1 0 4k").ok, "and afterwards it does");
    }
    await close();
  });

  it("an image that another QEMU has open is not exported, and the error says so", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("qcow2");
    const other = spawn("qemu-io", ["-f", "qcow2", diskOf(record).path], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    other.stdin.write("write -P 1 0 4k\n");
    await once(other.stdout, "data");
    const hold = await planned(exporter, record);
    await assert.rejects(exporter.export(hold, contextOf()), {
      code: "failed-precondition",
      message: /open in another QEMU process.*lock/,
    });
    other.stdin.end("quit\n");
    await once(other, "exit");
    await exporter.unexport(hold, contextOf());
    await close();
  });

  it("a chain of layers is exported with every layer stated", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("qcow2");
    qemuIO(record, "write -P 1 0 1M");
    await fixture.snapshot(number, record);
    qemuIO(record, "write -P 2 1M 1M");
    const hold = await exported(exporter, record);
    await io(hold, "read -P 1 0 1M", "read -P 2 1M 1M");
    await exporter.unexport(hold, contextOf());
    await close();
  });

  it("unexport drops who is connected, and the name never opens again", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("qcow2");
    const first = await exported(exporter, record);
    const client = spawn("qemu-io", ["-f", "raw", uriOf(first)], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    let text = "";
    client.stdout.on("data", (data) => (text += String(data)));
    client.stderr.on("data", (data) => (text += String(data)));
    const until = async (line: string, said: string): Promise<void> => {
      client.stdin.write(`${line}\n`);
      for (let round = 0; !text.includes(said); round += 1) {
        assert.ok(round < 2000, text);
        await sleep(5);
      }
    };
    await until("write -P 7 0 1M", "wrote 1048576");
    await until("flush", "qemu-io> qemu-io> ");
    await until("read 0 4k", "read 4096/4096");
    const [session] = await exporter.sessions([record], contextOf());
    assert.equal(session?.volumeID, record.id);
    await exporter.unexport(first, contextOf());
    assert.deepEqual(await exporter.sessions([record], contextOf()), []);
    client.stdin.end("write -P 8 0 1M\nquit\n");
    await once(client, "close");
    assert.match(text, /write failed/);
    const second = await exported(exporter, record, "host-c");
    assert.notEqual(uriOf(second), uriOf(first));
    assert.notEqual((await ended("nbdinfo", uriOf(first))).status, 0, "the old name");
    await io(second, "read -P 7 0 1M");
    await exporter.unexport(second, contextOf());
    await exporter.unexport(second, contextOf());
    await close();
  });

  it("of two holders of one volume one is dropped and the other goes on", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("raw");
    const [one, two] = [
      await exported(exporter, record, "a"),
      await exported(exporter, record, "b"),
    ];
    await io(one, "write -P 3 0 1M", "flush");
    const before = pids();
    await exporter.unexport(one, contextOf());
    await io(two, "read -P 3 0 1M");
    assert.deepEqual(pids(), before, "in the same daemon");
    await exporter.unexport(two, contextOf());
    await close();
  });

  it("a client that leaves does not end the daemon", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("raw");
    const hold = await exported(exporter, record);
    const before = pids();
    for (let round = 0; round < 5; round += 1) await io(hold, "read 0 4k");
    assert.deepEqual(pids(), before);
    await exporter.unexport(hold, contextOf());
    await close();
  });

  it("a daemon that is killed under load loses no write that was flushed, and is replaced", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("qcow2");
    const hold = await exported(exporter, record);
    let lost = 0;
    const stop = exporter.watch?.(() => (lost += 1));
    const load = spawn("qemu-io", ["-t", "writeback", "-f", "raw", uriOf(hold)], {
      stdio: ["pipe", "pipe", "ignore"],
    });
    load.stdin.on("error", () => {});
    let said = "";
    load.stdout.on("data", (data) => (said += String(data)));
    const written = (): number => said.split("wrote 65536/65536").length - 1;
    let asked = 0;
    const ask = (): void => {
      load.stdin.write(`write -P 6 ${4096 + asked * 64}k 64k\nflush\n`);
      asked += 1;
    };
    // Ahead of the answers, so that requests are on their way when the daemon dies.
    while (written() < 20)
      if (asked < written() + 4) ask();
      else await sleep(1);
    ask();
    for (const pid of pids()) process.kill(pid, "SIGKILL");
    for (let more = 0; more < 10; more += 1) ask();
    load.stdin.end("quit\n");
    await once(load, "close");
    while (lost === 0) await sleep(5);
    await exporter.export(hold, contextOf());
    // Each write was asked for when the flush of the one before was answered.
    const flushed = `4M ${(written() - 1) * 64}k`;
    assert.ok(written() < asked, "it was killed under load");
    await io(hold, `read -P 6 ${flushed}`);
    stop?.();
    await exporter.unexport(hold, contextOf());
    const check = (repair: boolean) => fixture.driver.images?.check(record, repair, contextOf());
    const found = await check(false);
    assert.equal(found?.corruptions, 0);
    assert.notEqual(found?.status, "corrupt", "clean, or with leaks that cost nothing but space");
    await check(true);
    assert.deepEqual(await check(false), { status: "clean", corruptions: 0, leaks: 0, fixed: 0 });
    assert.ok(qemuIO(record, `read -P 6 ${flushed}`).ok);
    await close();
  });

  it("what a host was told is written outlives a daemon that is killed, without a flush", async () => {
    const { exporter, close } = await openExporter();
    for (const format of ["raw", "qcow2"]) {
      const record = await volume(format);
      const hold = await exported(exporter, record);
      let lost = 0;
      const stop = exporter.watch?.(() => (lost += 1));
      const client = spawn("qemu-io", ["-t", "writeback", "-f", "raw", uriOf(hold)], {
        stdio: ["pipe", "pipe", "ignore"],
      });
      client.stdin.on("error", () => {});
      client.stdin.write("write -P 7 8M 64k\n");
      let said = "";
      for await (const chunk of client.stdout) {
        said += String(chunk);
        if (said.includes("wrote 65536/65536")) break;
      }
      for (const pid of pids()) process.kill(pid, "SIGKILL");
      client.kill("SIGKILL");
      while (lost === 0) await sleep(5);
      await exporter.export(hold, contextOf());
      await io(hold, "read -P 7 8M 64k");
      stop?.();
      await exporter.unexport(hold, contextOf());
    }
    await close();
  });

  it("a daemon that hangs is killed for the cut to be proven", async () => {
    const { exporter, close } = await openExporter();
    const record = await volume("raw");
    const hold = await exported(exporter, record);
    const [pid = 0] = pids();
    process.kill(pid, "SIGSTOP");
    await exporter.unexport(hold, contextOf());
    assert.ok(!existsSync(`/proc/${pid}/fd/0`), "its process is gone");
    assert.ok(qemuIO(record, "write -P 1 0 4k").ok);
    await close();
  });

  it("daemons outlive the server, the next one finds them, and ends those that nobody needs", async () => {
    const first = await openExporter();
    const [kept, dropped] = [await volume("raw"), await volume("raw")];
    const hold = await exported(first.exporter, kept);
    await exported(first.exporter, dropped);
    await io(hold, "write -P 9 0 1M");
    const before = pids();
    assert.equal(before.length, 2);
    await first.close();
    assert.deepEqual(pids(), before, "they go on");
    const second = await openExporter();
    assert.deepEqual(await second.exporter.restore([hold], contextOf()), []);
    assert.equal(pids().length, 1);
    assert.ok(before.includes(pids()[0] ?? 0), "the same process");
    // It listens on another port now, since this test lets the system choose.
    const { deviceName, fields } = (await planned(second.exporter, kept)).attachment;
    const moved = { ...fields, export: hold.attachment.fields?.["export"] ?? "" };
    const again = { volume: kept, attachment: { ...hold.attachment, deviceName, fields: moved } };
    await io(again, "read -P 9 0 1M");
    await second.exporter.unexport(hold, contextOf());
    await second.close();
  });

  it(
    "a block device is exported, grows, and no second writer gets at it meanwhile",
    { skip: loopMissing({ type: "ext4", sizeMiB: 16 }) },
    async () => {
      const { exporter, close } = await openExporter();
      const file = join(scratch.path, "block");
      writeFileSync(file, Buffer.alloc(4 * MIB));
      const loop = spawnSync("losetup", ["--find", "--show", file], {
        encoding: "utf8",
      }).stdout.trim();
      try {
        const record = { ...(await volume("raw")), source: { kind: "block", path: loop } as const };
        const second = () => ended("qemu-io", "-f", "raw", "-c", "write -P 4 3M 64k", loop);
        const hold = await exported(exporter, record);
        await io(hold, "write -P 4 1M 64k", "flush", "read -P 4 1M 64k");
        assert.match((await second()).stderr, /Failed to get (?:shared )?"write" lock/);
        await io(hold, "read -P 0 3M 64k");
        truncateSync(file, 8 * MIB);
        spawnSync("losetup", ["--set-capacity", loop]);
        const grown = { ...record, sizeBytes: 8 * MIB };
        for (let times = 0; times < 2; times += 1) {
          await exporter.expanded?.(grown, contextOf());
          assert.equal(Number(await run("nbdinfo", "--size", uriOf(hold))), 8 * MIB);
        }
        await io(hold, "write -P 5 7M 64k", "flush");
        await exporter.unexport(hold, contextOf());
        assert.equal((await second()).status, 0, "and afterwards another QEMU writes");
        spawnSync("blockdev", ["--flushbufs", loop]);
        assert.equal(readFileSync(file)[MIB + 5], 4);
      } finally {
        spawnSync("losetup", ["--detach", loop]);
      }
      await close();
    },
  );

  it("services end no daemons of each other", async () => {
    const { exporter, close } = await openExporter();
    const hold = await exported(exporter, await volume("raw"));
    const context = { ...contextOf(), libFolder: scratch.path, service: "other" };
    const other = await EXPORTERS.nbd.open(configOf(folder), context);
    await other.restore([], contextOf());
    await other.close();
    await io(hold, "read 0 4k");
    await exporter.unexport(hold, contextOf());
    await close();
  });

  it("an ISO file is exported for reading only", async () => {
    const { exporter, close } = await openExporter();
    number += 1;
    const iso = Buffer.alloc(64 * 1024);
    iso.write("\x01CD001", 32_768, "latin1");
    const some = await volume("raw");
    writeFileSync(join(diskOf(some).path, "../../../import/x.iso"), iso);
    const fields = { import: "x.iso", importformat: "iso" };
    const record = await fixture.create(number + 100, { fields });
    const hold = await exported(exporter, record);
    assert.equal(hold.attachment.fields?.["access"], "ro");
    const { status, stdout, stderr } = await ended(
      "qemu-io",
      "-f",
      "raw",
      "-c",
      "write 0 4k",
      uriOf(hold),
    );
    assert.match(`${status} ${stdout}${stderr}`, /read-only|Permission denied|not permitted/i);
    await exporter.unexport(hold, contextOf());
    await close();
  });

  for (const format of both)
    it(`an encrypted ${format} image is exported with the key, and refused without it`, async () => {
      const bare = await openExporter();
      number += 1;
      const fields = { format };
      const record = await fixture.create(number, { encrypted: true, sizeBytes: 4 * MIB, fields });
      await assert.rejects(planned(bare.exporter, record), {
        code: "failed-precondition",
        message: /encryptionKeyFile/,
      });
      await bare.close();
      const encryptionKeyFile = join(diskOf(record).path, "../../../../key");
      const { exporter, close } = await openExporter({ encryptionKeyFile });
      const hold = await exported(exporter, record);
      await io(hold, "write -P 0x5e 1M 1M", "flush");
      await io(hold, "read -P 0x5e 1M 1M");
      // What was never written to a raw one is decrypted from a hole.
      if (format === "qcow2") await io(hold, "read -P 0 3M 1M");
      await exporter.unexport(hold, contextOf());
      assert.ok(!readFileSync(diskOf(record).path).includes(Buffer.alloc(4096, 0x5e)), "in clear");
      await close();
    });

  it("many small requests at once are not held up", async () => {
    const { exporter, close } = await openExporter();
    const hold = await exported(exporter, await volume("raw"));
    const started = performance.now();
    await run(
      "qemu-img",
      "bench",
      "-f",
      "raw",
      "-c",
      "4000",
      "-d",
      "16",
      "-s",
      "4096",
      uriOf(hold),
    );
    const perSecond = 4000 / ((performance.now() - started) / 1000);
    // Through the daemon's own TCP server: 50 to 380.
    assert.ok(perSecond > 800, `${Math.round(perSecond)} reads a second`);
    await exporter.unexport(hold, contextOf());
    await close();
  });

  it("what does not speak NBD, or asks for what is not there, is turned away", async () => {
    const { exporter, close } = await openExporter();
    const hold = await exported(exporter, await volume("raw"));
    const port = Number(hold.attachment.fields?.["address"]?.split(":").at(-1));
    const words = [
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.alloc(4),
      Buffer.alloc(100_000, 0xff),
      Buffer.concat([
        Buffer.from([0, 0, 0, 3]),
        Buffer.from("IHAVEOPT"),
        Buffer.from([0, 0, 0, 7, 255, 255, 255, 255]),
      ]),
      Buffer.concat([
        Buffer.from([0, 0, 0, 3]),
        Buffer.from("IHAVEOPT"),
        Buffer.from([0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 1, 0]),
      ]),
    ];
    for (const text of words) {
      const socket = connect({ host: "127.0.0.1", port });
      socket.on("error", () => {});
      socket.end(text);
      socket.resume();
      await new Promise((resolve) => socket.once("close", resolve));
    }
    const uri = new URL(uriOf(hold));
    uri.pathname = "/nothing";
    const missing = await ended("nbdinfo", uri.href);
    assert.notEqual(missing.status, 0);
    const list = await ended("nbdinfo", "--list", `nbd://127.0.0.1:${port}`);
    assert.ok(
      !list.stdout.includes(hold.attachment.fields?.["export"] ?? "?"),
      "nobody is told names",
    );
    await io(hold, "read 0 4k");
    await exporter.unexport(hold, contextOf());
    await close();
  });

  it("addresses, folders and keys that cannot be used are refused when it opens", async () => {
    const open = (more: object) => openExporter(more);
    await assert.rejects(open({ listen: "0.0.0.0:0" }), {
      code: "failed-precondition",
      message: /tls/,
    });
    await assert.rejects(open({ listen: "0.0.0.0:0", insecure: true }), { message: /"address"/ });
    await assert.rejects(open({ listen: "192.0.2.1:1", insecure: true }), {
      message: /cannot be served/,
    });
    assert.throws(() => configOf(folder, { listen: "everywhere" }), /must be an address/);
    const { exporter, close } = await openExporter({
      daemonFolder: join(scratch.path, "x".repeat(90)),
    });
    const hold = await planned(exporter, await volume("raw"));
    await assert.rejects(exporter.export(hold, contextOf()), { message: /shorter "daemonFolder"/ });
    await close();
  });

  it("over TLS a host gets its own volumes, and nobody else gets anything", async () => {
    const pki = join(scratch.path, "pki");
    const ca = await makeCA({ commonName: "test CA", days: 2 });
    const issue = (commonName: string, purpose: "server" | "client") =>
      makeCertificate(purpose, ca, {
        commonName,
        days: 2,
        names: purpose === "server" ? ["127.0.0.1", "localhost"] : [],
      });
    const folderFor = async (name: string, common: string, purpose: "server" | "client") => {
      const { certificate, key } = await issue(common, purpose);
      spawnSync("mkdir", ["-p", join(pki, name)]);
      writeFileSync(join(pki, name, "ca-cert.pem"), ca.certificate);
      writeFileSync(join(pki, name, `${purpose}-cert.pem`), certificate);
      writeFileSync(join(pki, name, `${purpose}-key.pem`), key);
      return join(pki, name);
    };
    const server = await folderFor("server", "localhost", "server");
    const right = await folderFor("right", "HOST-B", "client");
    const wrong = await folderFor("wrong", "host-x", "client");
    const { exporter, close } = await openExporter({
      tls: {
        certFile: join(server, "server-cert.pem"),
        keyFile: join(server, "server-key.pem"),
        trustedCertsFile: join(server, "ca-cert.pem"),
      },
    });
    const hold = await exported(exporter, await volume("raw"));
    const over = (credentials: string) =>
      uriOf(hold).replace("nbd:", "nbds:") + `?tls-certificates=${credentials}`;
    const copied = join(scratch.path, "copied");
    await run("nbdcopy", over(right), copied);
    assert.equal(readFileSync(copied).length, 16 * MIB);
    rmSync(copied);
    assert.notEqual((await ended("nbdinfo", over(wrong))).status, 0, "another host's certificate");
    assert.notEqual((await ended("nbdinfo", uriOf(hold))).status, 0, "without TLS");
    const bare = join(pki, "bare");
    spawnSync("mkdir", [bare]);
    writeFileSync(join(bare, "ca-cert.pem"), ca.certificate);
    assert.notEqual((await ended("nbdinfo", over(bare))).status, 0, "without a certificate");
    await exporter.unexport(hold, contextOf());
    await close();
  });
});

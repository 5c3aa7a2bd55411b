/** Content of images, and what has changed in them, between two servers over mutual TLS. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { setTimeout } from "node:timers/promises";
import { after, before, describe, it } from "node:test";
import { spawnSync } from "node:child_process";
import type { VolumeExtent } from "@libstorage/model";
import { run } from "../conformance/tree.js";
import { BIN, run as runProgram } from "../client/fixture.js";
import { makeCertificates, startHost } from "./hosts.js";
import type { Host } from "./hosts.js";

const MIB = 1024 ** 2;
const KIB = 1024;

const missing =
  spawnSync("qemu-img", ["--version"]).status === 0 ? false : "qemu-img is not installed";

/** Files, layers, and qcow2 as files. */
const SERVICES = ["raw", "layers", "files"] as const;
type Service = (typeof SERVICES)[number];

let certificates: Awaited<ReturnType<typeof makeCertificates>>;
let from: Host;
let to: Host;
let scratch: string;

const root = (host: string, service: string): string => join(scratch, host, service);

function services(host: string): string {
  const own: Record<Service, string> = {
    raw: "format: raw",
    layers: "format: qcow2, snapshots: overlays",
    files: "format: qcow2, snapshots: files",
  };
  const image = SERVICES.map(
    (name) => `      ${name}: {driver: image, image: {root: ${root(host, name)}, ${own[name]}}}\n`,
  );
  return `${image.join("")}      folders: {driver: vfs, vfs: {root: ${root(host, "folders")}, quota: off}}\n`;
}

const disk = (host: string, service: Service, id: string): string =>
  join(root(host, service), "vol", id, service === "raw" ? "disk.raw" : "disk.qcow2");

const formatOf = (service: Service): string => (service === "raw" ? "raw" : "qcow2");

function io(service: Service, id: string, ...commands: readonly string[]): void {
  const args = commands.flatMap((command) => ["-c", command]);
  run("qemu-io", ["-f", formatOf(service), ...args, disk("from", service, id)]);
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** What a disk holds, as raw bytes. */
function bytesOf(host: string, service: Service, id: string): Buffer {
  const out = join(scratch, "bytes");
  run("qemu-img", ["convert", "-f", formatOf(service), "-O", "raw", disk(host, service, id), out]);
  return readFileSync(out);
}

async function upload(
  host: Host,
  service: string,
  format: string,
  bytes: Readable,
  more: object = {},
) {
  return host.client.volumeUpload({ service, name: "made", format, ...more }, { bytes }, {});
}

function checkNoLeftovers(): void {
  for (const host of ["from", "to"])
    for (const service of SERVICES) {
      const names = readdirSync(root(host, service)).filter((name) => name.startsWith(".tmp-"));
      assert.deepEqual(names, []);
      const shelf = readdirSync(join(root(host, service), "vol"));
      assert.deepEqual(
        shelf.filter((name) => !/^image-\d+(?:\.json)?$/.test(name)),
        [],
      );
    }
}

async function emptied(): Promise<void> {
  for (const host of [from, to])
    for (const [service, volumes] of Object.entries(await host.client.volumes({}, undefined, {})))
      for (const volumeID of Object.keys(volumes))
        await host.client.volumeRemove({ service, volumeID, force: true }, undefined, {});
  checkNoLeftovers();
}

async function listed(extents: AsyncIterable<VolumeExtent>): Promise<string[]> {
  const found: string[] = [];
  for await (const { offset, length, kind } of extents)
    found.push(`${offset / KIB} ${length / KIB} ${kind}`);
  return found;
}

describe("content of images", { skip: missing }, () => {
  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), "libstorage-image-streams-"));
    certificates = await makeCertificates();
    from = await startHost(certificates, services("from"));
    to = await startHost(certificates, services("to"));
  });
  after(async () => {
    await from.close();
    await to.close();
    for (const folder of [scratch, certificates.folder]) await rm(folder, { recursive: true });
  });

  // Not all pairs: a raw disk is a GiB, and goes through TLS twice.
  for (const [what, source, target] of [
    ["volume", "raw", "raw"],
    ["snapshot", "raw", "files"],
    ["snapshot", "files", "raw"],
    ["volume", "layers", "files"],
    ["snapshot", "layers", "files"],
  ] as const)
    it(`carries a ${what} from ${source} to ${target}`, async () => {
      const { client } = from;
      const { id } = await client.volumeCreate({ service: source }, { name: "one", size: 1 }, {});
      io(source, id, "write -P 0x11 0 1M", "write -P 0x22 100M 3M");
      const wanted = sha256(bytesOf("from", source, id));
      const shot = { service: source, volumeID: id };
      const snapshot = await client.volumeSnapshot(shot, { snapshotName: "s" }, {});
      if (what === "snapshot") io(source, id, "write -P 0x33 0 1M");
      const content =
        what === "volume"
          ? await client.volumeContent(shot, {})
          : await client.snapshotContent({ service: source, snapshotID: snapshot.id }, {});
      assert.equal(content.about.format, formatOf(source));
      assert.equal(content.about.sizeBytes, 1024 * MIB);
      const made = await upload(to, target, content.about.format, content.bytes);
      assert.equal(sha256(bytesOf("to", target, made.id)), wanted);
      assert.equal(made.size, 1);
      // Holes stay holes.
      assert.ok(statSync(disk("to", target, made.id)).blocks * 512 < 16 * MIB);
      await client.snapshotRemove({ service: source, snapshotID: snapshot.id }, undefined, {});
      await emptied();
    });

  it("writes a disk in the format that is asked for", async () => {
    const { client } = from;
    const params = { service: "files" };
    const { id } = await client.volumeCreate(params, { name: "one", size: 1 }, {});
    io("files", id, "write -P 0x11 0 1M");
    const content = await client.volumeContent({ ...params, volumeID: id, format: "raw" }, {});
    const hash = createHash("sha256");
    for await (const chunk of content.bytes) hash.update(chunk as Buffer);
    assert.equal(hash.digest("hex"), sha256(bytesOf("from", "files", id)));
    await assert.rejects(client.volumeContent({ ...params, volumeID: id, format: "tar" }, {}), {
      code: "unimplemented",
      message: /gives and takes qcow2, raw/,
    });
    await emptied();
  });

  it("refuses images that name other files, and what is no qcow2", async () => {
    const base = join(scratch, "base.raw");
    const hostile = join(scratch, "hostile.qcow2");
    writeFileSync(base, Buffer.alloc(MIB, "secret"));
    run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", hostile]);
    for (const [bytes, message] of [
      [readFileSync(hostile), /names the backing file/],
      [randomBytes(MIB), /does not begin like a qcow2/],
    ] as const) {
      const refused = { code: "invalid-argument", message };
      await assert.rejects(upload(to, "files", "qcow2", Readable.from([bytes])), refused);
      await assert.rejects(upload(to, "raw", "qcow2", Readable.from([bytes])), refused);
    }
    checkNoLeftovers();
  });

  /** A qcow2 of which much is used. */
  function madeDisk(): Buffer {
    const path = join(scratch, "whole.qcow2");
    run("qemu-img", ["create", "-q", "-f", "qcow2", path, "8M"]);
    run("qemu-io", ["-f", "qcow2", "-c", "write -P 0x5a 0 6M", path]);
    return readFileSync(path);
  }

  const NOTHING = { raw: {}, layers: {}, files: {}, folders: {} };

  async function checkNothing(): Promise<void> {
    assert.deepEqual(await to.client.volumes({}, undefined, {}), NOTHING);
    assert.deepEqual(to.app.storage.journal.openIntents(), []);
    checkNoLeftovers();
  }

  for (const service of SERVICES)
    for (const format of ["raw", "qcow2"] as const)
      it(`${service} refuses ${format} content with another digest than it should have`, async () => {
        const bytes = format === "raw" ? randomBytes(MIB) : madeDisk();
        const params = { service, name: "made", format, size: 1 };
        const sent = (digest: string) =>
          to.app.content.volumeUpload(
            params,
            { bytes: Readable.from([bytes]), sha256: () => digest },
            {},
          );
        await assert.rejects(sent(sha256(Buffer.from("something else"))), {
          code: "invalid-argument",
          message: /SHA-256 is [\da-f]{64}, and should be [\da-f]{64}/,
        });
        await checkNothing();
        await sent(sha256(bytes));
        await emptied();
      });

  for (const format of ["raw", "qcow2"] as const)
    it(`leaves nothing when the connection breaks within ${format} content, and can be repeated`, async () => {
      const disk = madeDisk();
      const isOpen = (): boolean => to.app.storage.journal.openIntents().length > 0;
      const pieces = async function* (isCut: boolean) {
        for (let at = 0; at < disk.length; at += MIB / 4) {
          if (isCut && at >= disk.length / 2) {
            while (!isOpen()) await setTimeout(10);
            to.cut();
          }
          yield disk.subarray(at, at + MIB / 4);
        }
      };
      for (const service of SERVICES) {
        const torn = upload(to, service, format, Readable.from(pieces(true)));
        await assert.rejects(torn, { code: "unavailable" });
        while (isOpen()) await setTimeout(10);
        await checkNothing();
        const made = await upload(to, service, format, Readable.from(pieces(false)));
        const content = bytesOf("to", service, made.id);
        if (format === "raw") assert.ok(content.subarray(0, disk.length).equals(disk));
        else assert.ok(content.subarray(0, 6 * MIB).equals(Buffer.alloc(6 * MIB, 0x5a)));
        await emptied();
      }
    });

  it("refuses a qcow2 that ends early, though its digest says that it is all there was", async () => {
    const disk = madeDisk();
    for (const service of SERVICES)
      for (const length of [disk.length - MIB, disk.length / 2, 100_000]) {
        const bytes = Readable.from([disk.subarray(0, length)]);
        await assert.rejects(upload(to, service, "qcow2", bytes), {
          code: "invalid-argument",
          message: /name what is not in the file, as when it was cut short/,
        });
        await checkNothing();
      }
  });

  it("refuses a disk that is larger than the volume would be", async () => {
    const bytes = Readable.from(
      (function* () {
        for (let at = 0; at < 1100; at += 1) yield Buffer.alloc(MIB);
      })(),
    );
    await assert.rejects(upload(to, "raw", "raw", bytes, { size: 1 }), {
      code: "invalid-argument",
      message: /has more than the 1 ?GiB/,
    });
    await emptied();
  });

  it("takes gigabytes in bounded memory", async () => {
    const block = randomBytes(MIB);
    const bytes = Readable.from(
      (function* () {
        for (let at = 0; at < 300; at += 1) yield at % 10 === 0 ? block : Buffer.alloc(MIB);
      })(),
      { objectMode: false },
    );
    const start = process.memoryUsage().rss;
    let most = 0;
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
    const { id } = await upload(to, "raw", "raw", bytes);
    clearInterval(timer);
    assert.ok(most - start < 150 * MIB, `${(most - start) / MIB} MiB more`);
    assert.equal(statSync(disk("to", "raw", id)).size, 300 * MIB);
    assert.ok(statSync(disk("to", "raw", id)).blocks * 512 < 40 * MIB);
    await emptied();
  });

  for (const service of SERVICES)
    describe(`changed blocks of ${service}`, () => {
      let id: string;
      let snapshotID: string;
      const changes = async (since?: string): Promise<string[]> => {
        const query = { service, ...(since !== undefined && { since }) };
        const { extents, sizeBytes } = await from.client.volumeChanges(
          { ...query, volumeID: id },
          {},
        );
        assert.equal(sizeBytes, 1024 * MIB);
        return listed(extents);
      };
      before(async () => {
        const { client } = from;
        ({ id } = await client.volumeCreate({ service }, { name: "one", size: 1 }, {}));
        io(service, id, "write -P 0x11 0 1M", "write -P 0x22 100M 3M");
        const params = { service, volumeID: id };
        snapshotID = (await client.volumeSnapshot(params, { snapshotName: "s" }, {})).id;
      });
      after(async () => {
        for (const one of Object.keys(
          await from.client.snapshotsByService({ service }, undefined, {}),
        ))
          await from.client.snapshotRemove({ service, snapshotID: one }, undefined, {});
        await emptied();
      });

      it("are none after the snapshot", async () => {
        assert.deepEqual(await changes(snapshotID), []);
      });

      it("are what was written, and no more", async () => {
        io(
          service,
          id,
          "write -P 0x33 4k 8k",
          "write -P 0x44 64M 64k",
          "write -z 100M 1M",
          // As it was.
          "write -P 0x22 102M 64k",
          "write -P 0x55 1048572k 4k",
        );
        assert.deepEqual(await changes(snapshotID), [
          "4 8 data",
          `${64 * KIB} 64 data`,
          `${100 * KIB} 1024 zero`,
          "1048572 4 data",
        ]);
      });

      it("are those between two snapshots, too", async () => {
        const params = { service, volumeID: id };
        const later = await from.client.volumeSnapshot(params, { snapshotName: "later" }, {});
        io(service, id, "write -P 0x66 200M 4k");
        const query = { service, snapshotID: later.id, since: snapshotID };
        const { extents } = await from.client.snapshotChanges(query, {});
        assert.deepEqual(await listed(extents), [
          "4 8 data",
          `${64 * KIB} 64 data`,
          `${100 * KIB} 1024 zero`,
          "1048572 4 data",
        ]);
        assert.deepEqual(await changes(later.id), [`${200 * KIB} 4 data`]);
      });

      it("are all that has data without a snapshot", async () => {
        const found = await changes();
        const has = (kib: number): boolean =>
          found.some((line) => {
            const [offset = 0, length = 0] = line.split(" ").map(Number);
            return offset <= kib && kib < offset + length;
          });
        for (const mib of [0, 64, 101, 200]) assert.ok(has(mib * KIB), found.join("; "));
        for (const mib of [50, 150, 900]) assert.ok(!has(mib * KIB), found.join("; "));
      });

      it("are told by the command line", async () => {
        const env = { LIBSTORAGE_HOME: join(scratch, "home"), LIBSTORAGE_HOST: from.address };
        const tls = {
          LIBSTORAGE_TLS_CERTFILE: certificates.tls.certFile,
          LIBSTORAGE_TLS_KEYFILE: certificates.tls.keyFile,
          LIBSTORAGE_TLS_TRUSTEDCERTSFILE: certificates.tls.trustedCertsFile,
        };
        const args = ["volume", "changes", id, "--since", snapshotID, "--service", service];
        const { code, stdout, stderr } = await runProgram(BIN, args, { ...env, ...tls });
        assert.equal(code, 0, stderr);
        assert.equal(stdout.split("\n")[0], `${4 * KIB} ${8 * KIB} data`);
      });
    });

  it("of another volume's snapshot are refused", async () => {
    const { client } = from;
    const ids: string[] = [];
    for (const name of ["one", "two"])
      ids.push((await client.volumeCreate({ service: "raw" }, { name, size: 1 }, {})).id);
    const [volumeID = "", other = ""] = ids;
    const params = { service: "raw", volumeID };
    const snapshot = await client.volumeSnapshot(params, { snapshotName: "s" }, {});
    const query = { service: "raw", volumeID: other, since: snapshot.id };
    await assert.rejects(client.volumeChanges(query, {}), { code: "failed-precondition" });
    const folders = await client.volumeCreate({ service: "folders" }, { name: "f" }, {});
    await assert.rejects(client.volumeChanges({ service: "folders", volumeID: folders.id }, {}), {
      code: "unimplemented",
    });
    await client.snapshotRemove({ service: "raw", snapshotID: snapshot.id }, undefined, {});
    await emptied();
  });
});

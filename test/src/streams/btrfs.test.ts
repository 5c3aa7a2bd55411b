/** Copies of btrfs volumes between two servers, over mutual TLS. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable, Transform } from "node:stream";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ContentStream } from "@libstorage/client";
import type { Volume } from "@libstorage/model";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import { contextOf, volumeOf } from "../conformance/fixture.js";
import { attributesMissing, describeAttributes, describeTree } from "../conformance/tree.js";
import { fillTree, run } from "../conformance/tree.js";
import type { LoopFileSystem } from "../loop.js";
import { BIN, run as runProgram } from "../client/fixture.js";
import { makeCertificates, startHost } from "./hosts.js";
import type { Host } from "./hosts.js";

const MIB = 1024 ** 2;

let loops: LoopFileSystem[] = [];
let certificates: Awaited<ReturnType<typeof makeCertificates>>;
let from: Host;
let to: Host;
let roots: { from: string; to: string };

const service = (root: string): string =>
  `      data: {driver: btrfs, btrfs: {root: ${root}, quota: auto}}\n`;

const dataOf = (root: string, id: string): string => join(root, "vol", id);

function fill(folder: string, mib: number): void {
  run("dd", ["if=/dev/urandom", `of=${join(folder, "large")}`, "bs=1M", `count=${mib}`]);
}

/** Only whole volumes with their records, and the contents that some of them are increments of. */
function checkNoLeftovers(kept: readonly string[] = []): void {
  for (const root of Object.values(roots)) {
    const names = readdirSync(root).filter((name) => name !== ".libstorage.lock");
    assert.deepEqual(names.filter((name) => name !== "received").toSorted(), ["snap", "vol"], root);
    for (const name of readdirSync(join(root, "vol")))
      assert.match(name, /^btrfs-\d+(?:\.json)?$/, `left: ${name}`);
  }
  const found = readdirSync(roots.to).includes("received")
    ? readdirSync(join(roots.to, "received"))
    : [];
  assert.deepEqual(found.toSorted(), kept.toSorted());
  for (const id of kept) assert.deepEqual(readdirSync(join(roots.to, "received", id)), ["base"]);
}

async function createAt(host: Host, name = "source"): Promise<Volume> {
  return host.client.volumeCreate({ service: "data" }, { name, size: 2 }, {});
}

async function send(content: ContentStream, name = "copy", more: object = {}): Promise<Volume> {
  const { format, lengthBytes } = content.about;
  return to.client.volumeUpload(
    { service: "data", name, format, size: 2, ...more },
    { bytes: content.bytes, ...(lengthBytes !== undefined && { lengthBytes }) },
    {},
  );
}

const read = (volumeID: string): Promise<ContentStream> =>
  from.client.volumeContent({ service: "data", volumeID }, {});

async function volumesAt(host: Host): Promise<string[]> {
  return Object.keys(await host.client.volumesByService({ service: "data" }, undefined, {}));
}

/** Waits until both servers have noticed that a connection is gone, and have cleaned up. */
async function idle(): Promise<void> {
  const isBusy = ({ app }: Host): boolean =>
    app.storage.operations.tasks.all().some(({ state }) => state === "running");
  for (let tries = 0; tries < 1000 && (isBusy(from) || isBusy(to)); tries += 1) await sleep(20);
  assert.ok(!isBusy(from) && !isBusy(to), "an operation goes on after its connection is gone");
}

describe("btrfs content from one server to another", { skip: btrfsMissing() }, () => {
  before(async () => {
    loops = [makeBtrfs(), makeBtrfs()];
    const [one, two] = loops;
    roots = { from: join(one?.folder ?? "", "from"), to: join(two?.folder ?? "", "to") };
    certificates = await makeCertificates();
    from = await startHost(certificates, service(roots.from));
    to = await startHost(certificates, service(roots.to));
  });
  afterEach(async () => {
    await idle();
    for (const host of [from, to]) {
      const params = { service: "data" };
      const snapshots = await host.client.snapshotsByService(params, undefined, {});
      for (const snapshotID of Object.keys(snapshots))
        await host.client.snapshotRemove({ ...params, snapshotID }, undefined, {});
      for (const volumeID of await volumesAt(host))
        await host.client.volumeRemove({ ...params, volumeID, force: true }, undefined, {});
    }
    checkNoLeftovers();
  });
  after(async () => {
    await from.close();
    await to.close();
    await rm(certificates.folder, { recursive: true });
    for (const loop of loops) loop.remove();
  });

  it("carries all that is in a volume", { skip: attributesMissing() ?? false }, async () => {
    const source = await createAt(from);
    const folder = dataOf(roots.from, source.id);
    fillTree(folder);
    const content = await read(source.id);
    assert.equal(content.about.format, "btrfs-send");
    const copy = await send(content);
    assert.deepEqual(describeTree(dataOf(roots.to, copy.id)), describeTree(folder));
    assert.deepEqual(describeAttributes(dataOf(roots.to, copy.id)), describeAttributes(folder));
    assert.equal(copy.size, 2);
    writeFileSync(join(dataOf(roots.to, copy.id), "writable"), "yes");
    checkNoLeftovers();
  });

  it("carries hundreds of MB in bounded memory", async () => {
    const source = await createAt(from);
    fill(dataOf(roots.from, source.id), 200);
    const before = process.memoryUsage().rss;
    let most = 0;
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
    const copy = await send(await read(source.id));
    clearInterval(timer);
    run("cmp", [
      join(dataOf(roots.from, source.id), "large"),
      join(dataOf(roots.to, copy.id), "large"),
    ]);
    // Both servers and the client are this one process.
    assert.ok(most - before < 150 * MIB, `${(most - before) / MIB} MiB more`);
  });

  it("sends increments by the command line", async () => {
    const source = await createAt(from);
    const params = { service: "data", volumeID: source.id };
    const env = {
      LIBSTORAGE_HOME: join(from.folder, "client"),
      LIBSTORAGE_HOST: from.address,
      LIBSTORAGE_TLS_CERTFILE: certificates.tls.certFile,
      LIBSTORAGE_TLS_KEYFILE: certificates.tls.keyFile,
      LIBSTORAGE_TLS_TRUSTEDCERTSFILE: certificates.tls.trustedCertsFile,
    };
    const told: boolean[] = [];
    for (const day of ["monday", "tuesday"]) {
      writeFileSync(join(dataOf(roots.from, source.id), "day"), day);
      await from.client.volumeSnapshot(params, { snapshotName: day }, {});
      const args = ["volume", "copy", day, `of-${day}`, "--to-host", to.address, "--incremental"];
      const { code, stdout, stderr } = await runProgram(BIN, args, env);
      assert.equal(code, 0, stderr);
      told.push(stderr.includes("an increment of"));
      const id = /data-\d+|btrfs-\d+/.exec(stdout)?.[0] ?? "";
      assert.equal(readFileSync(join(dataOf(roots.to, id), "day"), "utf8"), day);
    }
    assert.deepEqual(told, [false, true]);
  });

  it("sends increments of what both sides have", async () => {
    const source = await createAt(from);
    const folder = dataOf(roots.from, source.id);
    fill(folder, 100);
    const params = { service: "data", volumeID: source.id };
    const shoot = async (snapshotName: string): Promise<string> =>
      (await from.client.volumeSnapshot(params, { snapshotName }, {})).id;
    const carry = async (snapshotID: string, name: string) => {
      const info = await to.client.serviceInspect(
        { service: "data", contents: true },
        undefined,
        {},
      );
      const have = (info.contents ?? []).join(",");
      const content = await from.client.snapshotContent({ service: "data", snapshotID, have }, {});
      const { contentID = "", parentID } = content.about;
      let bytes = 0;
      content.bytes.on("data", (chunk: Buffer) => (bytes += chunk.length));
      content.bytes.pause();
      const ids = { contentID, ...(parentID !== undefined && { parentID }) };
      const { id } = await send(content, name, ids);
      return { id, bytes, contentID, parentID };
    };
    const monday = await carry(await shoot("monday"), "monday");
    assert.equal(monday.parentID, undefined);
    writeFileSync(join(folder, "new"), "tuesday");
    const tuesday = await carry(await shoot("tuesday"), "tuesday");
    assert.equal(tuesday.parentID, monday.contentID);
    assert.ok(tuesday.bytes < MIB, `${tuesday.bytes} bytes`);
    assert.deepEqual(describeTree(dataOf(roots.to, tuesday.id)), describeTree(folder));
    checkNoLeftovers([monday.contentID, tuesday.contentID]);
    // The base goes with the volume; what is there of Tuesday does for Wednesday.
    await to.client.volumeRemove({ service: "data", volumeID: monday.id }, undefined, {});
    checkNoLeftovers([tuesday.contentID]);
    writeFileSync(join(folder, "new"), "wednesday");
    const wednesday = await carry(await shoot("wednesday"), "wednesday");
    assert.equal(wednesday.parentID, tuesday.contentID);
    assert.equal(readFileSync(join(dataOf(roots.to, wednesday.id), "new"), "utf8"), "wednesday");
    const gone = { contentID: wednesday.contentID, parentID: monday.contentID };
    await assert.rejects(
      send(
        await from.client.snapshotContent({ service: "data", snapshotID: `${source.id}-002` }, {}),
        "x",
        gone,
      ),
      { code: "failed-precondition", message: /is not here any more; send it whole/ },
    );
  });

  for (const [what, whose] of [
    ["of the target", () => to],
    ["of the source", () => from],
  ] as const)
    it(`leaves nothing when the connection ${what} breaks midway, and can be repeated`, async () => {
      const source = await createAt(from);
      fill(dataOf(roots.from, source.id), 100);
      const content = await read(source.id);
      let bytes = 0;
      const cutting = new Transform({
        transform(chunk: Buffer, _encoding, done) {
          bytes += chunk.length;
          if (bytes > 30 * MIB) whose().cut();
          done(null, chunk);
        },
      });
      content.bytes.on("error", (error) => cutting.destroy(error));
      cutting.on("close", () => content.bytes.destroy());
      const cut = { ...content, bytes: content.bytes.pipe(cutting) };
      await assert.rejects(send(cut), { code: "unavailable" });
      await idle();
      assert.deepEqual(await volumesAt(to), []);
      assert.deepEqual(to.app.storage.journal.openIntents(), []);
      checkNoLeftovers();
      assert.equal((await send(await read(source.id))).name, "copy");
    });

  it("refuses content with another digest than it should have", async () => {
    const source = await createAt(from);
    fill(dataOf(roots.from, source.id), 5);
    const content = await read(source.id);
    const chunks = (await content.bytes.toArray()) as Buffer[];
    const { app } = to;
    const sha256 = createHash("sha256").update("something else").digest("hex");
    const upload = { bytes: Readable.from(chunks), sha256: () => sha256 };
    const params = { service: "data", name: "copy", format: "btrfs-send", size: 2 };
    await assert.rejects(app.content.volumeUpload(params, upload, {}), {
      code: "invalid-argument",
      message: /SHA-256 is [\da-f]{64}, and should be [\da-f]{64}/,
    });
    assert.deepEqual(await volumesAt(to), []);
    checkNoLeftovers();
  });

  it("refuses what is no stream, or not whole", async () => {
    const source = await createAt(from);
    fill(dataOf(roots.from, source.id), 5);
    const whole = Buffer.concat((await (await read(source.id)).bytes.toArray()) as Buffer[]);
    for (const bytes of [Buffer.from("no stream"), Buffer.alloc(0), whole.subarray(0, 2 * MIB)]) {
      const content = {
        about: { format: "btrfs-send" as const },
        bytes: Readable.from([bytes]),
        sha256: () => "",
      };
      await assert.rejects(send(content), { code: "invalid-argument" }, `${bytes.length} bytes`);
      checkNoLeftovers();
    }
  });

  it("refuses more than the volume would hold, and more than is free", async () => {
    const source = await createAt(from);
    fill(dataOf(roots.from, source.id), 5);
    const { bytes: large } = await read(source.id);
    const { driver } = to.app.storage.service("data");
    const content = { format: "btrfs-send", bytes: large, isSizeGiven: true } as const;
    const small = { ...volumeOf(driver, 99), sizeBytes: MIB };
    const making = driver.content?.volumeCreateFrom(small, content, contextOf());
    await assert.rejects(making ?? assert.fail(), {
      code: "resource-exhausted",
      message: /takes 5.* ?MiB, and the volume would have 1 ?MiB/,
    });
    const { bavail, bsize } = statfsSync(roots.to);
    const bytes = Readable.from([Buffer.from("x")]);
    const params = { service: "data", name: "copy", format: "btrfs-send" };
    const lengthBytes = bavail * bsize + 1024 * MIB;
    await assert.rejects(to.client.volumeUpload(params, { bytes, lengthBytes }, {}), {
      code: "resource-exhausted",
      message: /has .*GiB free/,
    });
    checkNoLeftovers();
  });

  it("is a task with progress, which can be cancelled", async () => {
    const source = await createAt(from);
    fill(dataOf(roots.from, source.id), 300);
    const content = await read(source.id);
    const sending = send(content);
    sending.catch(() => {});
    const seen: number[] = [];
    for (let isCancelled = false; !isCancelled;) {
      await sleep(10);
      const tasks = Object.values(await to.client.tasks({}, undefined, {}));
      const task = tasks.find(({ operation }) => operation === "volumeUpload");
      const { done = 0, total = 0 } = task?.progress ?? {};
      if (done > 0) seen.push(done / total);
      if (task === undefined || done === 0) continue;
      await to.client.taskCancel({ taskID: String(task.id) }, undefined, {});
      isCancelled = true;
    }
    await assert.rejects(sending, { code: "cancelled" });
    assert.ok(
      seen.every((share) => share > 0 && share <= 1),
      seen.join(),
    );
    await idle();
    checkNoLeftovers();
  });
});

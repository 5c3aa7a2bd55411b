/** Who gets in to exports over NBD, as whom their daemons run, and what of an image's history clients are shown. */
import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  writeFileSync,
} from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { makeCA, makeCertificate } from "@libstorage/server";

import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { DoorHost, OTHER_HOST, SERVICE, through } from "./door-host.js";
import { ended, run } from "./nbd-client.js";

const skip = toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "nbdinfo");
const scratch = makeScratch("nbd-access");
let hosts = 0;

/** A server of its own for a case; without exports in the end. */
async function withHost(
  options: Parameters<typeof DoorHost.open>[1],
  act: (host: DoorHost) => Promise<void>,
): Promise<void> {
  hosts += 1;
  const host = await DoorHost.open(join(scratch.path, `h${hosts}`), options);
  try {
    await act(host);
  } finally {
    for (const { id = "" } of await host.exports()) await host.remove(id, "hard");
    await host.close();
  }
}

const isLetIn = async (uri: string): Promise<boolean> =>
  (await ended("nbdinfo", "--json", uri)).status === 0;

async function credentials(
  ca: Awaited<ReturnType<typeof makeCA>>,
  name: string,
  purpose: "server" | "client",
): Promise<string> {
  const names = purpose === "server" ? ["127.0.0.1", "localhost"] : [];
  const made = await makeCertificate(purpose, ca, { commonName: name, days: 2, names });
  const folder = join(scratch.path, "pki", name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "ca-cert.pem"), ca.certificate);
  writeFileSync(join(folder, `${purpose}-cert.pem`), made.certificate);
  writeFileSync(join(folder, `${purpose}-key.pem`), made.key);
  return folder;
}

function pidsBelow(folder: string): number[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith("/pid"))
    .map((name) => Number(readFileSync(join(folder, name), "utf8")));
}

describe("access over nbd", { skip }, () => {
  before(() => mkdirSync(scratch.path, { recursive: true }));
  after(() => scratch.remove());

  it("by a pre-shared key: the right one alone, and only who is allowed by name", async () => {
    const keys = join(scratch.path, "keys");
    const text = `alice:${"5a".repeat(32)}\nbob:${"a5".repeat(32)}\n`;
    writeFileSync(keys, text, { mode: 0o600 });
    const wrong = join(scratch.path, "wrong-keys");
    writeFileSync(wrong, `alice:${"00".repeat(32)}\nmallory:${"5a".repeat(32)}\n`);
    await withHost({ nbd: { pskFile: keys } }, async (host) => {
      const volumeID = await host.volume();
      const door = await host.add({ volumeID, type: "nbd", id: "p", name: "p", allow: ["Alice"] });
      const as = (who: string, file: string): string =>
        door.deviceName.replace("nbds://", `nbds://${who}@`) + `?tls-psk-file=${file}`;
      assert.ok(await isLetIn(as("alice", keys)));
      assert.ok(!(await isLetIn(as("alice", wrong))), "the right name with a wrong key");
      assert.ok(!(await isLetIn(as("mallory", wrong))), "a name that is not known");
      assert.ok(!(await isLetIn(as("bob", keys))), "known, and not allowed here");
      assert.ok(!(await isLetIn(door.deviceName.replace("nbds:", "nbd:"))), "without TLS");
    });
  });

  it("by the distinguished name of a certificate", async () => {
    const ca = await makeCA({ commonName: "test CA", days: 2 });
    const server = await credentials(ca, "localhost", "server");
    const backup = await credentials(ca, "backup", "client");
    const other = await credentials(ca, "other", "client");
    const tls = {
      certFile: join(server, "server-cert.pem"),
      keyFile: join(server, "server-key.pem"),
      trustedCertsFile: join(server, "ca-cert.pem"),
    };
    await withHost({ nbd: { tls } }, async (host) => {
      const volumeID = await host.volume();
      const params = { service: SERVICE, exportID: "d" };
      const door = await host.add({
        volumeID,
        type: "nbd",
        id: "d",
        name: "d",
        allow: ["CN=backup,O=libstorage"],
      });
      const as = (folder: string): string => `${door.deviceName}?tls-certificates=${folder}`;
      assert.ok(await isLetIn(as(backup)));
      assert.ok(!(await isLetIn(as(other))));
      await host.service.exportUpdate(params, { allow: ["O=libstorage,CN=other"] }, {});
      assert.ok(await isLetIn(as(other)), "allowed since");
      assert.ok(!(await isLetIn(as(backup))), "and no more");
    });
  });

  it("without TLS by its address: also who comes from this host, once a list says who may", async () => {
    await withHost({ hasHosts: true }, async (host) => {
      const volumeID = await host.volume();
      const params = { service: SERVICE, exportID: "a" };
      const door = await host.add({ volumeID, type: "nbd", id: "a", allow: ["10.9.9.9"] });
      assert.ok(!(await isLetIn(door.deviceName)), "another host alone");
      await host.service.exportUpdate(params, { allow: ["10.9.9.9", "127.0.0.1"] }, {});
      assert.ok(await isLetIn(door.deviceName), "this one too");
      await host.service.exportUpdate(params, { allow: [] }, {});
      assert.ok(!(await isLetIn(door.deviceName)), "nobody");
      await host.remove("a");
      const open = await host.add({ volumeID, type: "nbd", id: "o" });
      assert.ok(await isLetIn(open.deviceName), "without a list, this host");
      await host.remove("o");
      const attached = async (to: object): Promise<boolean> => {
        const { fields } = await host.attachToHost(volumeID, to);
        const isIn = await isLetIn(`nbd://${fields["address"]}/${fields["export"]}`);
        await host.detachFromHost(volumeID, to);
        return isIn;
      };
      const { metadata } = OTHER_HOST;
      const far = { id: "far", metadata: { ...metadata, addresses: ["10.9.9.9"] } };
      assert.ok(!(await attached(far)), "a volume of another host");
      assert.ok(await attached({ id: "near" }), "of one that has told an address of loopback");
    });
  });

  it("dirty bitmaps of an image are shown by name, and one that is not there is refused", async () => {
    await withHost({}, async (host) => {
      const volumeID = await host.volume("qcow2");
      const disk = join(host.folder, "root/vol", volumeID, "disk.qcow2");
      await run("qemu-img", "bitmap", "--add", "-f", "qcow2", disk, "since-monday");
      const wanted = { volumeID, type: "nbd", transport: "unix" } as const;
      const writer = await host.add({ ...wanted, id: "w", writable: true });
      await through(writer, "write -P 9 2M 1M", "flush");
      await host.remove("w");
      await assert.rejects(host.add({ ...wanted, id: "x", bitmaps: ["since-sunday"] }), {
        message: /since-sunday/,
      });
      assert.deepEqual(await host.exports(), [], "nothing is left of what was refused");
      const both = { ...wanted, id: "r", bitmaps: ["since-monday"] };
      await assert.rejects(host.add(both), {
        code: "failed-precondition",
        message: /is still being written; .* --disable/,
      });
      await run("qemu-img", "bitmap", "--disable", "-f", "qcow2", disk, "since-monday");
      const reader = await host.add(both);
      const map = await run("nbdinfo", "--map=qemu:dirty-bitmap:since-monday", reader.deviceName);
      assert.match(map, /^ *2097152 +1048576 +1 +dirty$/m);
      assert.match(map, /^ *0 +2097152 +0 +clean$/m);
    });
  });
});

const isRoot = process.getuid?.() === 0;
describe(
  "the daemons of exports",
  { skip: skip || (!isRoot && "only root may change users") },
  () => {
    before(() => mkdirSync(scratch.path, { recursive: true }));
    after(() => scratch.remove());

    it("run as another user, with no more memory than they are given", async () => {
      const daemon = { daemonUser: "nobody", daemonMemory: "2GiB" };
      await withHost({ daemon }, async (host) => {
        chmodSync(scratch.path, 0o755);
        const volumeID = await host.volume("qcow2");
        // Also what lies below the image.
        await host.service.volumeSnapshot(
          { service: SERVICE, volumeID },
          { snapshotName: "s" },
          {},
        );
        const uid = Number(execFileSync("id", ["-u", "nobody"], { encoding: "utf8" }));
        const door = await host.add({ volumeID, type: "nbd", id: "u", writable: true });
        await through(door, "write -P 4 0 1M", "read -P 4 0 1M");
        const [pid = 0] = pidsBelow(join(host.folder, "l"));
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        assert.match(status, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, "m"));
        assert.match(status, /^NoNewPrivs:\t1$/m);
        const limits = readFileSync(`/proc/${pid}/limits`, "utf8");
        assert.match(limits, new RegExp(`^Max address space +${2 * 1024 ** 3} `, "m"));
        assert.match(limits, /^Max core file size +0 /m);
        await host.remove("u");
        if (!existsSync("/dev/fuse")) return;
        await host.add({ volumeID, type: "fuse", id: "f" });
        for (const one of pidsBelow(join(host.folder, "l")))
          assert.match(
            readFileSync(`/proc/${one}/limits`, "utf8"),
            new RegExp(`^Max address space +${2 * 1024 ** 3} `, "m"),
          );
        assert.equal(pidsBelow(join(host.folder, "l")).length, 2, "the volume's and the file's");
        await host.remove("f");
      });
    });

    it("have no network", async () => {
      await withHost({}, async (host) => {
        const door = await host.add({ volumeID: await host.volume(), type: "nbd", id: "u" });
        await through(door, "read 0 1M");
        const [pid = 0] = pidsBelow(join(host.folder, "l"));
        assert.deepEqual(
          readFileSync(`/proc/${pid}/net/dev`, "utf8")
            .match(/^ *\w+:/gm)
            ?.map((one) => one.trim()),
          ["lo:"],
        );
      });
    });
  },
);

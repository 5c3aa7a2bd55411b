/** A volume that comes by NBD over TLS, and one whose storage daemon is killed under load. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openExecutor, runCommand } from "@libstorage/client/host";
import type { Attached, Executor } from "@libstorage/client/host";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { makeCA, makeCertificate } from "@libstorage/server";
import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { loopMissing } from "../loop.js";
import { DoorHost, OTHER_HOST } from "./door-host.js";
import { ended, run } from "./nbd-client.js";

const skip =
  toolsMissing("qemu-img", "qemu-storage-daemon", "losetup", "fio") ||
  loopMissing({ type: "ext4", sizeMiB: 16 }) ||
  (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

const scratch = makeScratch("nl");
const limits = () => ({ timeoutMs: 120_000, signal: AbortSignal.timeout(120_000) });

interface Pki {
  readonly folder: string;
  readonly trustedCertsFile: string;
}

async function makePki(name: string): Promise<Pki> {
  const folder = join(scratch.path, name);
  mkdirSync(folder);
  const ca = await makeCA({ commonName: `${name} CA`, days: 2 });
  writeFileSync(join(folder, "ca.pem"), ca.certificate);
  for (const purpose of ["server", "client"] as const) {
    const names = purpose === "server" ? ["127.0.0.1", "localhost"] : [];
    const commonName = purpose === "server" ? "server" : OTHER_HOST.id;
    const made = await makeCertificate(purpose, ca, { commonName, days: 2, names });
    writeFileSync(join(folder, `${purpose}.pem`), made.certificate);
    writeFileSync(join(folder, `${purpose}.key`), made.key, { mode: 0o600 });
  }
  return { folder, trustedCertsFile: join(folder, "ca.pem") };
}

const filesOf = ({ folder, trustedCertsFile }: Pki, purpose: "server" | "client") => ({
  certFile: join(folder, `${purpose}.pem`),
  keyFile: join(folder, `${purpose}.key`),
  trustedCertsFile,
});

function executorWith(name: string, config: object): Executor {
  const executor = openExecutor("image", {
    config: new ScopedConfig([new ConfigTree(config)]),
    libFolder: join(scratch.path, name),
    hostName: "here",
    isRoot: true,
    exec: runCommand,
  });
  assert.ok(executor !== undefined);
  return executor;
}

const attached = async (host: DoorHost): Promise<Attached> =>
  host.attachToHost(await host.volume("qcow2"));

async function withHost(options: object, act: (host: DoorHost) => Promise<void>): Promise<void> {
  const host = await DoorHost.open(scratch.path, { nbd: options, exports: [], hasHosts: true });
  try {
    await act(host);
  } finally {
    await host.removeVolumes();
    await host.close();
  }
}

function pidsBelow(folder: string): number[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith("/pid"))
    .map((name) => Number(readFileSync(join(folder, name), "utf8")));
}

describe("a volume that comes by NBD", { skip, timeout: 300_000 }, () => {
  before(() => mkdirSync(scratch.path, { recursive: true }));
  after(() => scratch.remove());

  it("over TLS: with a certificate that the server trusts, and from a server that this host trusts", async () => {
    const [right, other] = [await makePki("right"), await makePki("other")];
    const tls = filesOf(right, "server");
    await withHost({ listen: "127.0.0.1:19433", tls }, async (host) => {
      const one = await attached(host);
      const known = executorWith("known", { nbd: filesOf(right, "client") });
      await known.connect?.(one, limits());
      await run("dd", "if=/dev/urandom", `of=${one.device}`, "bs=1M", "count=2", "conv=fsync");
      await known.disconnect?.(one, limits());
      const stranger = executorWith("stranger", { nbd: filesOf(other, "client") });
      await assert.rejects(async () => stranger.connect?.(one, limits()), {
        message: /TLS|certificate/,
      });
      const bare = executorWith("bare", {});
      await assert.rejects(async () => bare.connect?.(one, limits()), {
        message: /set nbd\.\w+ or tls\.\w+ in this host/,
      });
      assert.equal(existsSync(one.device), false, "nothing is left of what was refused");
    });
  });

  it("goes on under load when its storage daemon is killed, with all that was written", async () => {
    await withHost({ listen: "127.0.0.1:19434" }, async (host) => {
      const one = await attached(host);
      const executor = executorWith("load", {});
      await executor.connect?.(one, limits());
      const job = [
        "--name=load",
        `--filename=${one.device}`,
        "--rw=randwrite",
        "--bs=4k",
        "--size=24M",
        "--ioengine=psync",
        "--direct=1",
        "--fsync=8",
        "--verify=crc32c",
        "--randseed=7",
        "--minimal",
        "--verify_state_save=0",
      ];
      const load = ended("fio", ...job, "--do_verify=0");
      const daemons = join(host.folder, "l/qsd");
      let kills = 0;
      let isOver = false;
      void load.then(() => (isOver = true));
      while (!isOver && kills < 3) {
        await sleep(700);
        for (const pid of pidsBelow(daemons)) process.kill(pid, "SIGKILL");
        kills += 1;
      }
      const { status, stderr } = await load;
      assert.equal(status, 0, stderr);
      assert.ok(kills > 0);
      await run("fio", ...job, "--verify_only");
      await executor.disconnect?.(one, limits());
      await host.detachFromHost(one.volumeID);
      const disk = join(host.folder, "root/vol", one.volumeID, "disk.qcow2");
      const check = await ended("qemu-img", "check", "-f", "qcow2", disk);
      assert.ok(check.status === 0 || check.status === 3, `sound, or with leaks: ${check.stdout}`);
      const mended = await ended("qemu-img", "check", "-r", "leaks", "-f", "qcow2", disk);
      assert.equal(mended.status, 0, mended.stdout);
      const clean = await ended("qemu-img", "check", "-f", "qcow2", disk);
      assert.equal(clean.status, 0, clean.stdout);
    });
  });
});

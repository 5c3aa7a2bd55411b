/**
 * Cuts of hosts that have locks over NFS 3, with the tables of exports(5) and mounts, and no NFS server: this process
 * keeps a file of the share open as the lock manager does, and closes it when it is told to let go. The kernel's own is
 * in the lab.
 */
import assert from "node:assert/strict";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { EXPORTERS, KernelServer } from "@libstorage/server";
import type { FaultPlan } from "@libstorage/server";
import * as v from "valibot";
import { contextOf } from "../conformance/fixture.js";
import { makeScratch } from "../faults/folders.js";
import { inPrivateHost, missing } from "./private-host.js";

type Config = ConstructorParameters<typeof KernelServer>[0];
type Share = Parameters<KernelServer["add"]>[0];

/** Puts the lock manager in the place of `unlock_filesystem`: it lets go once a path is written there. */
function lockManager(file: string, path: string) {
  writeFileSync(file, "");
  let held: number | undefined = openSync(join(path, "lock"), "w");
  const release = (): void => {
    if (held !== undefined) closeSync(held);
    held = undefined;
  };
  const timer = setInterval(() => {
    if (readFileSync(file, "utf8") !== "") release();
  }, 20);
  return {
    release,
    end: (): string => {
      clearInterval(timer);
      release();
      return readFileSync(file, "utf8");
    },
  };
}

inPrivateHost(
  import.meta.url,
  { name: "cuts of locks over NFS 3", skip: missing("exportfs"), limitMs: 120_000 },
  () => {
    const scratch = makeScratch("nfs3-locks");
    const unlockFile = join(scratch.path, "unlock_filesystem");
    const folder = join(scratch.path, "shares/svc");
    const places = {
      folder,
      exportsFile: join(scratch.path, "ours.exports"),
      unavailable: () => undefined,
      unlockFile,
    };
    const server = new KernelServer(v.parse(EXPORTERS.nfs.config, {}) as Config, places);
    const context = contextOf();

    const share = (volumeID: string, epoch: number, isVersion3: boolean): Share => {
      const source = join(scratch.path, volumeID);
      mkdirSync(source, { recursive: true });
      return {
        volumeID,
        holder: `host-${epoch}`,
        source,
        path: join(folder, volumeID, String(epoch)),
        fsid: `0a5f6c1e-0000-8000-8000-00000000000${epoch}`,
        clients: [{ address: `10.77.0.${epoch}`, isReadOnly: false }],
        isVersion3,
      };
    };

    describe("cuts of locks over NFS 3", () => {
      after(async () => {
        await server.close();
        rmSync(unlockFile, { force: true });
        await scratch.remove();
      });

      it("the kernel is told to let go, and the holder is cut off", async () => {
        const beside = share("beside", 2, true);
        await server.add(beside, context);
        const locked = share("locked", 3, true);
        await server.add(locked, context);
        const manager = lockManager(unlockFile, locked.path);
        try {
          await server.remove(locked, context);
        } finally {
          assert.equal(manager.end(), `${locked.path}\n`);
        }
        assert.doesNotMatch(readFileSync("/proc/mounts", "utf8"), /shares\/svc\/locked/);
        await server.remove(beside, context);
      });

      it("a holder of NFS 4 costs nobody a lock", async () => {
        const open = share("open", 4, false);
        await server.add(open, context);
        const manager = lockManager(unlockFile, open.path);
        setTimeout(manager.release, 4_000);
        await server.remove(open, context);
        assert.equal(manager.end(), "");
      });

      it("a kernel that refuses to let go does not end the cut", async () => {
        const asked: string[] = [];
        const faults: FaultPlan = {
          pass: (point, _signal, act) => {
            if (!point.what.startsWith("set ")) return act();
            asked.push(point.what);
            return Promise.reject(new Error("planned failure"));
          },
        };
        const locked = share("refused", 8, true);
        await server.add(locked, context);
        const manager = lockManager(unlockFile, locked.path);
        setTimeout(manager.release, 4_000);
        await server.remove(locked, contextOf({ faults }));
        assert.equal(manager.end(), "");
        assert.deepEqual(asked, [`set ${unlockFile}`], "once");
      });

      it("where several hosts have a volume nothing is let go, and the error says how to", async () => {
        const several = [share("several", 5, true), share("several", 6, true)];
        const locked = share("locked", 7, true);
        for (const one of [...several, locked]) await server.add(one, context);
        const manager = lockManager(unlockFile, locked.path);
        try {
          await assert.rejects(server.remove(locked, context), {
            code: "failed-precondition",
            message: new RegExp(
              `cannot be proven.*svc/several is in the same file system.*echo ${locked.path} > ${unlockFile}`,
            ),
          });
        } finally {
          assert.equal(manager.end(), "");
        }
        for (const one of [...several, locked]) await server.remove(one, context);
        assert.doesNotMatch(readFileSync("/proc/mounts", "utf8"), /shares\/svc/);
      });
    });
  },
);

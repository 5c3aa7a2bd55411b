/** What becomes of doors when the server starts again: who uses them stays, and what their records say counts. */
import assert from "node:assert/strict";
import { existsSync, linkSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Export } from "@libstorage/model";
import { makeScratch } from "../faults/folders.js";
import { Client, until } from "./client.js";
import { DoorHost, SERVICE, opens, through } from "./door-host.js";
import { liveMissing } from "./live-client.js";

const MIB = 1024 ** 2;
/** Longer than the server takes to look twice whether somebody uses a hidden door. */
const LOOKED_MS = 2_500;

const pathOf = ({ deviceName }: Export): string =>
  deviceName.startsWith("/") ? deviceName : (new URL(deviceName).searchParams.get("socket") ?? "");

for (const daemonFor of ["volume", "service"])
  describe(
    `a server that starts again, with a daemon for each ${daemonFor}`,
    {
      skip: liveMissing,
    },
    () => {
      const scratch = makeScratch("dr");
      let host: DoorHost;
      const open = async (): Promise<void> => {
        host = await DoorHost.open(scratch.path, { daemon: { daemonFor } });
      };
      const isThere = async (id: string): Promise<boolean> =>
        (await host.exports()).some((one) => one.id === id);
      const stateOf = async (id: string): Promise<string | undefined> =>
        (await host.exports()).find((one) => one.id === id)?.state;
      const daemons = (): readonly string[] => {
        const parent = join(scratch.path, "l/qsd");
        return readdirSync(parent).flatMap((one) =>
          readdirSync(join(parent, one)).map((name) => join(parent, one, name)),
        );
      };
      /** What a crash leaves between a record that was written and a daemon that was not told. */
      const rewrite = (volumeID: string, from: string, to: string): void => {
        const path = join(scratch.path, "root/vol", `${volumeID}.json`);
        const text = readFileSync(path, "utf8");
        assert.ok(text.includes(from), text);
        writeFileSync(path, text.replace(from, to));
      };

      before(open);
      afterEach(async () => {
        for (const { id = "" } of await host.exports()) await host.remove(id, "hard");
        await host.removeVolumes();
        assert.deepEqual(host.storage.warnings, []);
      });
      after(async () => {
        await host.close();
        await scratch.remove();
      });

      it("the disk of a machine stays while the machine is there, of a hidden door too", async () => {
        const volumeID = await host.volume();
        const door = await host.add({ volumeID, type: "vhost-user-blk", id: "v", writable: true });
        const machine = connect(pathOf(door));
        await once(machine, "connect");
        let isCut = false;
        machine.once("close", () => (isCut = true));
        await until("it is seen", async () => {
          const sessions = await host.storage.service(SERVICE).exports.sessions();
          return sessions.length > 0;
        });
        assert.equal((await host.remove("v", "hide"))?.state, "hidden");
        for (let round = 0; round < 2; round += 1) {
          await host.close();
          await open();
          await sleep(LOOKED_MS);
          assert.equal(isCut, false, "it was cut off");
          assert.equal(await stateOf("v"), "hidden");
        }
        machine.destroy();
        await until("it is gone", async () => !(await isThere("v")));
      });

      it("a client of a hidden Unix door stays, where it is the daemon's own", async (t) => {
        if (daemonFor === "service") return t.skip("no door is");
        const volumeID = await host.volume();
        const door = await host.add({
          volumeID,
          type: "nbd",
          transport: "unix",
          id: "h",
          writable: true,
        });
        const client = new Client(door.deviceName);
        await client.says("write -P 3 0 4k", /wrote 4096/);
        assert.equal((await host.remove("h", "hide"))?.state, "hidden");
        for (let round = 0; round < 2; round += 1) {
          await host.close();
          await open();
          await sleep(LOOKED_MS);
          await client.says("read -P 3 0 4k", /read 4096/);
          assert.equal(await stateOf("h"), "hidden");
        }
        await client.end();
        await until("it is gone", async () => !(await isThere("h")));
      });

      it("a throttle that was written down counts", async () => {
        const volumeID = await host.volume("raw");
        for (const type of ["nbd", "fuse"] as const) {
          const throttle = { bpsTotal: 1024 ** 3 } as never;
          const transport = type === "nbd" && ({ transport: "unix" } as const);
          const wanted = { volumeID, type, id: "t", writable: true, throttle, ...transport };
          const door = await host.add(wanted);
          await through(door, "write 0 4M");
          await host.close();
          rewrite(volumeID, String(1024 ** 3), String(MIB));
          await open();
          const [again] = await host.exports();
          assert.ok(again !== undefined);
          const started = performance.now();
          await through(again, ...[1, 2, 3].map(() => "write 0 2M"), "flush");
          const ms = performance.now() - started;
          assert.ok(ms > 2_500, `${type}: 6 MiB at 1 MiB/s took ${ms} ms`);
          await host.remove("t", "hard");
        }
      });

      it("a file that was to be shut down is, and no new client gets in", async () => {
        const volumeID = await host.volume();
        const door = await host.add({ volumeID, type: "fuse", id: "f", writable: true });
        const client = new Client(door.deviceName);
        await client.says("write -P 3 0 4k", /wrote 4096/);
        await host.close();
        rewrite(volumeID, '"state":"open"', '"state":"shutdown"');
        await open();
        await client.says("write -P 4 0 4k", /failed/);
        assert.equal(await opens(door.deviceName), false, "a new client");
        await client.end();
        await until("it is gone", async () => !(await isThere("f")));
      });

      it("a Unix door that was to be hidden or shut down is", async (t) => {
        if (daemonFor === "service") return t.skip("its clients are gone with the old server");
        const volumeID = await host.volume();
        for (const state of ["hidden", "shutdown"]) {
          const wanted = { volumeID, type: "nbd", transport: "unix", writable: true } as const;
          const door = await host.add({ ...wanted, id: "u" });
          const client = new Client(door.deviceName);
          await client.says("write -P 3 0 4k", /wrote 4096/);
          await host.close();
          rewrite(volumeID, '"state":"open"', `"state":"${state}"`);
          for (let round = 0; round < 2; round += 1) {
            await open();
            assert.deepEqual(host.storage.warnings, []);
            assert.equal(existsSync(pathOf(door)), false);
            await client.says("read -P 3 0 4k", state === "hidden" ? /read 4096/ : /failed/);
            assert.equal(await stateOf("u"), state);
            if (round === 0) await host.close();
          }
          await client.end();
          await until("it is gone", async () => !(await isThere("u")));
        }
      });

      it("a socket that an earlier version made the daemon's own leads to its door alone again", async () => {
        const volumeID = await host.volume();
        const wanted = { volumeID, type: "nbd", transport: "unix" } as const;
        const door = await host.add({ ...wanted, id: "r" });
        const path = pathOf(door);
        await host.close();
        assert.equal(existsSync(path), false);
        const own = daemons().find((folder) => !folder.includes("/f-")) ?? "";
        linkSync(join(own, "nbd.sock"), path);
        const early = new Client("-r", door.deviceName);
        await early.says("read 0 4k", /read 4096/);
        await open();
        await early.says("read 0 4k", /read 4096/);
        await assert.rejects(host.remove("r"), { message: /is in use by/ });
        await early.end();
        assert.equal(await opens(door.deviceName), true);
      });

      it("a daemon that is slow to answer is waited for", async () => {
        const volumeID = await host.volume();
        const door = await host.add({ volumeID, type: "fuse", id: "s", writable: true });
        const client = new Client(door.deviceName);
        await client.says("write -P 3 0 4k", /wrote 4096/);
        const folder = daemons().find((one) => !one.includes("/f-")) ?? "";
        const pid = Number(readFileSync(join(folder, "pid"), "utf8"));
        await host.close();
        process.kill(pid, "SIGSTOP");
        const goesOn = sleep(5_000).then(() => process.kill(pid, "SIGCONT"));
        await open();
        await goesOn;
        assert.equal(Number(readFileSync(join(folder, "pid"), "utf8")), pid, "the same daemon");
        await client.says("read -P 3 0 4k", /read 4096/);
        await client.end();
      });
    },
  );

/** What one door gives, it gives alone: its socket, its name and its path are no other door's. */
import assert from "node:assert/strict";
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import type { Export } from "@libstorage/model";
import { makeScratch } from "../faults/folders.js";
import { Client, until } from "./client.js";
import { DoorHost, OTHER_HOST, opens, through } from "./door-host.js";
import { liveMissing } from "./live-client.js";
import { NbdTalk } from "./nbd-talk.js";
import { run } from "./nbd-client.js";

const socketOf = ({ deviceName }: Export): string =>
  new URL(deviceName).searchParams.get("socket") ?? "";
const nameOf = ({ deviceName }: Export): string => new URL(deviceName).pathname.slice(1);

for (const daemonFor of ["volume", "service"])
  describe(`doors with a daemon for each ${daemonFor}`, { skip: liveMissing }, () => {
    const scratch = makeScratch("da");
    let host: DoorHost;
    const open = async (): Promise<void> => {
      host = await DoorHost.open(scratch.path, { daemon: { daemonFor }, hasHosts: true });
    };
    const shared = { opts: { format: "qcow2", shareable: true } };
    const unix = (volumeID: string, more: object = {}): Promise<Export> =>
      host.add({ volumeID, type: "nbd", transport: "unix", ...more });
    const isThere = async (id: string): Promise<boolean> =>
      (await host.exports()).some((one) => one.id === id);

    before(open);
    afterEach(async () => {
      for (const { id = "" } of await host.exports()) await host.remove(id, "hard");
      await host.removeVolumes();
    });
    after(async () => {
      await host.close();
      await scratch.remove();
    });

    it("the socket of a door that may only read leads to no other", async () => {
      const [one, two] = [await host.volume("qcow2", shared), await host.volume()];
      const writer = await unix(one, { id: "w", name: "rw", writable: true });
      const reader = await unix(one, { id: "r", name: "ro" });
      const others = [writer, await unix(two, { id: "o", writable: true })];
      await through(writer, "write -P 5 0 4k", "flush");
      await through(reader, "read -P 5 0 4k");
      assert.equal(statSync(socketOf(reader)).mode & 0o777, 0o600);
      const talk = await NbdTalk.at(socketOf(reader));
      for (const other of others) {
        assert.equal(await talk.info(nameOf(other)), "refused");
        assert.equal(await talk.go(nameOf(other)), "refused");
      }
      assert.equal(await talk.info("ro"), "ack");
      assert.equal(await talk.go("rw"), "refused");
      assert.equal(await talk.go("ro"), "ack");
      talk.end();
      const list = await run("nbdinfo", "--list", `nbd+unix://?socket=${socketOf(reader)}`);
      assert.deepEqual(list.match(/^export=.*$/gm), ['export="ro":']);
      await until("it is removed", () =>
        host.remove("r").then(
          () => true,
          () => false,
        ),
      );
      assert.equal(existsSync(socketOf(reader)), false);
    });

    it("a door that may write leads to no other volume", async () => {
      const [one, two] = [await host.volume(), await host.volume()];
      const [mine, other] = [
        await unix(one, { writable: true }),
        await unix(two, { writable: true }),
      ];
      const talk = await NbdTalk.at(socketOf(mine));
      assert.equal(await talk.info(nameOf(other)), "refused");
      assert.equal(await talk.go(nameOf(mine)), "ack");
      talk.end();
    });

    it("a door that may only read is hidden, shut down, removed and cut off as any other", async () => {
      const volumeID = await host.volume();
      for (const mode of ["hide", "soft", "hard"]) {
        const door = await unix(volumeID, { id: "r" });
        const client = new Client("-r", door.deviceName);
        await client.says("read 0 4k", /read 4096/);
        await assert.rejects(host.remove("r", "safe"), { message: /is in use by a client of/ });
        const left = await host.remove("r", mode);
        if (mode === "hard") assert.equal(left, null);
        assert.equal(existsSync(socketOf(door)), false);
        assert.equal(await opens(door.deviceName), false, "a new client");
        await client.says("read 0 4k", mode === "hide" ? /read 4096/ : /failed/);
        await client.end();
        await until("it is gone", async () => !(await isThere("r")));
      }
    });

    it("a server that starts again serves it again; who was in it is gone with the old one", async () => {
      const volumeID = await host.volume();
      const stays = await unix(volumeID, { id: "r" });
      const hidden = await unix(volumeID, { id: "h" });
      const clients = [stays, hidden].map(({ deviceName }) => new Client("-r", deviceName));
      for (const client of clients) await client.says("read 0 4k", /read 4096/);
      assert.equal((await host.remove("h", "hide"))?.state, "hidden");
      await host.close();
      for (const client of clients) await client.says("read 0 4k", /failed/);
      await open();
      assert.equal(await opens(stays.deviceName), true);
      await until("it is gone", async () => !(await isThere("h")));
      for (const client of clients) await client.end();
    });

    it("a name is of one door until that is gone, whatever its transport, state and volume", async () => {
      const [one, two] = [await host.volume("qcow2", shared), await host.volume()];
      for (const transport of ["tcp", "unix"] as const) {
        const wanted = { type: "nbd", name: "disk", transport, writable: true } as const;
        const first = await host.add({ ...wanted, volumeID: one, id: "a" });
        const client = new Client(first.deviceName);
        await client.says("write -P 4 0 4k", /wrote 4096/);
        const refused = async (): Promise<void> => {
          for (const volumeID of [one, two])
            for (const other of ["tcp", "unix"] as const)
              await assert.rejects(
                host.add({ ...wanted, volumeID, id: "b", transport: other }),
                { code: "already-exists" },
                `${other} beside ${transport}`,
              );
        };
        await refused();
        assert.equal((await host.remove("a", "hide"))?.state, "hidden");
        await refused();
        if (transport === "unix" && daemonFor === "volume") {
          await host.close();
          await open();
          await refused();
        }
        await client.says("read -P 4 0 4k", /read 4096/);
        await client.end();
        await until("it is gone", async () => !(await isThere("a")));
        const second = await host.add({ ...wanted, volumeID: two, id: "b" });
        await through(second, "write -P 6 0 4k");
        await host.remove("b", "hard");
      }
    });

    it("two that want one name at once: one gets it, and the other takes nothing away from it", async () => {
      const volumes = await Promise.all([1, 2, 3, 4].map(() => host.volume()));
      const wanted = { type: "nbd", name: "disk", writable: true } as const;
      const all = await Promise.allSettled(
        volumes.map((volumeID) => host.add({ ...wanted, volumeID })),
      );
      const made = all.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
      assert.equal(made.length, 1);
      assert.equal((await host.exports()).length, 1);
      for (const one of made) await through(one, "write -P 1 0 4k", "read -P 1 0 4k");
    });

    it("a host's name is no door's, and a door's path no other's while it is hidden", async () => {
      const [one, two] = [await host.volume("qcow2", shared), await host.volume()];
      const attached = await host.attachToHost(one);
      const name = attached.fields["export"] ?? "";
      for (const volumeID of [one, two])
        await assert.rejects(unix(volumeID, { name }), { code: "already-exists" });
      await host.detachFromHost(one);
      const next = name.replace(/\d+$/, (epoch) => String(Number(epoch) + 2));
      await unix(two, { id: "squatter", name: next });
      await host.add({ volumeID: one, type: "nbd", id: "x", writable: true });
      await assert.rejects(host.attachToHost(one), { code: "already-exists" }, OTHER_HOST.id);
      await host.remove("x");
      await host.remove("squatter");

      const door = await unix(one, { id: "p", writable: true });
      const client = new Client(door.deviceName);
      await client.says("read 0 4k", /read 4096/);
      await host.remove("p", "hide");
      const path = socketOf(door);
      assert.equal(existsSync(path), false);
      await assert.rejects(unix(two, { path }), { code: "already-exists" });
      await client.end();
      await until("it is gone", async () => !(await isThere("p")));
      const again = await unix(two, { id: "q", path });
      assert.equal(await opens(again.deviceName), true);
    });

    it("exporters that differ in what their daemons get are refused, and both are named", async () => {
      const folder = join(scratch.path, "other");
      for (const nbd of [
        { encryptionKeyFile: "/another/key" },
        { daemonUser: "nobody" },
        { daemonMemory: "2GiB" },
        { daemonFor: daemonFor === "volume" ? "service" : "volume" },
      ])
        await assert.rejects(
          DoorHost.open(folder, { daemon: { daemonFor }, nbd }).then((other) => other.close()),
          new RegExp(`exporters nbd and fuse of service disks.*"${Object.keys(nbd)[0]}"`),
        );
    });
  });

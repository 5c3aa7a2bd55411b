/** A server that has just been started shows an attachment that it is about to take back. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { CommandError, runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import type { Volume, VolumeService } from "@libstorage/model";
import { startServer } from "./fixture.js";
import type { TestServer } from "./fixture.js";
import { cannotMount, openHost } from "./host-fixture.js";

const GONE = { deviceName: "192.0.2.1:/gone/1", fields: { exporter: "nfs", version: "4.2" } };

/** As mount.nfs says it of a path that its server does not export. */
const exec: Exec = async (file, args, options) => {
  if (!args.includes("nfs")) return runCommand(file, args, options);
  const stderr = "mount.nfs: mounting failed, reason given by server: No such file or directory";
  throw new CommandError(file, args, { exitCode: 32, stderr }, undefined);
};

/** Reads see what is gone; the holder who asks gets what is so. */
function thatShowsTheOld(service: VolumeService): VolumeService {
  const old = (volume: Volume): Volume => ({
    ...volume,
    attachments: (volume.attachments ?? []).map((one) => ({ ...one, ...GONE })),
  });
  return {
    ...service,
    volumeInspect: async (...args) => old(await service.volumeInspect(...args)),
    volumesByService: async (...args) => {
      const all = Object.entries(await service.volumesByService(...args));
      return Object.fromEntries(all.map(([id, volume]) => [id, old(volume)]));
    },
  };
}

describe("a mount of what the server has taken back meanwhile", { skip: cannotMount() }, () => {
  let server: TestServer;
  before(async () => {
    server = await startServer();
  });
  after(async () => server.close());

  async function mountOld(isGivenAnew: boolean): Promise<readonly string[]> {
    const shown = thatShowsTheOld(server.app.service);
    const { service } = server.app;
    const host = await openHost(
      {
        ...shown,
        volumeAttach: async (...args) => {
          const answer = await service.volumeAttach(...args);
          if (isGivenAnew) return answer;
          const { volumeID } = answer.volume.attachments?.[0] ?? assert.fail("not attached");
          return {
            ...answer,
            volume: await shown.volumeInspect(
              { service: "vfs", volumeID, attachments: 5 },
              undefined,
              args[2],
            ),
          };
        },
      },
      { exec },
    );
    try {
      const name = isGivenAnew ? "anew" : "same";
      const { id } = await service.volumeCreate({ service: "vfs" }, { name }, {});
      await host.volumes.attach(id, false, {});
      await host.volumes.mount(name, {}, {});
      return await host.mounts();
    } finally {
      await host.close();
    }
  }

  it("is done with what the server gives when it is asked again", async () => {
    assert.equal((await mountOld(true)).length, 1);
  });

  it("fails when that is the same", async () => {
    await assert.rejects(mountOld(false), { code: "unavailable", message: /no longer exports it/ });
  });
});

/** The service inside another program: without sockets, and just as careful. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { DRIVERS, SILENT, loadConfig, openApp } from "@libstorage/server";
import type { App } from "@libstorage/server";

const CONFIG =
  "libstorage: { server: { services: { vfs: { driver: vfs }, mock: { driver: mock } } } }";

describe("the embedded service", () => {
  let folder = "";
  let app: App;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "libstorage-embedded-"));
    const env = { LIBSTORAGE_HOME: folder };
    app = await openApp(loadConfig(DRIVERS, { text: CONFIG, env }), { log: SILENT });
  });
  after(async () => {
    await app.close();
    await rm(folder, { recursive: true });
  });

  it("does what the README shows", async () => {
    const volume = await app.service.volumeCreate({ service: "vfs" }, { name: "first" }, {});
    assert.equal(volume.id, "vfs-000");
    const list = await app.service.volumesByService({ service: "vfs" }, undefined, {});
    assert.deepEqual(Object.keys(list), ["vfs-000"]);
  });

  it("refuses bodies that types alone do not keep out, and changes nothing", async () => {
    const bad = [
      { name: "x", size: 0.5 },
      { name: "x", size: -1 },
      { name: "a\0b" },
      { name: 1 },
      { nam: "x" },
      [],
    ];
    for (const body of bad)
      await assert.rejects(app.service.volumeCreate({ service: "vfs" }, body as never, {}), {
        code: "invalid-argument",
      });
    const list = await app.service.volumesByService({ service: "vfs" }, undefined, {});
    assert.deepEqual(Object.keys(list), ["vfs-000"]);
  });

  it("refuses an unknown service as a rejection, not as a throw", async () => {
    const call = app.service.volumeRemove({ service: "nope", volumeID: "x" }, undefined, {});
    await assert.rejects(call, { code: "not-found" });
  });
});

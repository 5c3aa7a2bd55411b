/** `GET /exports` and `libstorage export ls`: who was let in, and who is connected. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import * as v from "valibot";
import type { Export, ServiceExportMap, ServiceInfo } from "@libstorage/model";
import { defineExporter } from "@libstorage/server";
import type { Exporter, VolumeRecord } from "@libstorage/server";
import { BIN, run } from "../client/fixture.js";
import { startRest } from "./rest-server.js";
import type { RestServer } from "./rest-server.js";

const far = (id: string) => ({
  id,
  driver: "mock",
  service: "",
  metadata: { hostName: id, bootID: "0b0e0a1c-5a5b-4c5d-8e8f-000000000001" },
});

/** The holder that is not connected. */
let gone = "away";

/** Lets anyone in, and says that each holder but that one is connected. */
const list = defineExporter({
  name: "list",
  config: v.object({}),
  open: async (): Promise<Exporter> => ({
    name: "list",
    sources: ["none"],
    plan: async ({ id }: VolumeRecord) => ({ deviceName: `/dev/${id}`, fields: { lun: "1" } }),
    export: async () => {},
    unexport: async () => {},
    restore: async () => [],
    sessions: async (volumes) =>
      volumes.flatMap(({ id, attachments }) =>
        attachments
          .filter(({ instanceID }) => instanceID.id !== gone)
          .map(({ instanceID }) => ({
            volumeID: id,
            instanceID: instanceID.id,
            peer: `name-of-${instanceID.id}`,
            address: "10.0.0.2",
            state: "logged in",
          })),
      ),
    abilities: async () => [],
    close: async () => {},
  }),
});

const CONFIG = `
libstorage:
  server:
    services:
      out: {driver: mock, exporter: list, shareable: true, mock: {seed: false}}
      plain: {driver: mock, mock: {seed: false}}
`;

describe("exports", () => {
  let server: RestServer;
  before(async () => {
    server = await startRest(CONFIG, { exporters: { list } });
    const { service } = server.app;
    const { id } = await service.volumeCreate({ service: "out" }, { name: "v" }, {});
    for (const host of ["near", "away"])
      await service.volumeAttach(
        { service: "out", volumeID: id },
        {},
        { instanceIDs: [far(host)] },
      );
  });
  after(() => server.close());

  it("are of services that say whether several may hold a volume", async () => {
    for (const [name, shareable] of [
      ["out", true],
      ["plain", undefined],
    ] as const) {
      const info = (await server.ask("GET", `/services/${name}`)).json<ServiceInfo>();
      assert.equal(info.shareable, shareable, name);
    }
  });

  it("are listed with the sessions of each holder", async () => {
    const all = (await server.ask("GET", "/exports")).json<ServiceExportMap>();
    assert.deepEqual(Object.keys(all), ["out", "plain"]);
    assert.deepEqual(all["plain"], []);
    const [first, second] = all["out"] ?? [];
    assert.deepEqual(first, {
      service: "out",
      volumeID: "vol-004",
      exporter: "list",
      instanceID: { id: "near", driver: "mock", service: "" },
      deviceName: "/dev/vol-004",
      fields: { exporter: "list", lun: "1" },
      sessions: [{ peer: "name-of-near", address: "10.0.0.2", state: "logged in" }],
    });
    assert.deepEqual(second?.sessions, []);
    const one = (await server.ask("GET", "/exports/out")).json<Export[]>();
    assert.deepEqual(one, all["out"]);
    assert.equal((await server.ask("GET", "/exports/nope")).status, 404);
  });

  it("are the same bytes until a holder comes or goes, connected or not", async () => {
    for (const path of ["/exports", "/exports/out"]) {
      const { etag = "" } = (await server.ask("GET", path)).headers;
      const again = async (): Promise<number> =>
        (await server.ask("GET", path, { headers: { "If-None-Match": etag } })).status;
      assert.equal(await again(), 304);
      gone = "near";
      assert.equal(await again(), 200, "another one is connected");
      gone = "away";
      assert.equal(await again(), 304);
      const volume = { service: "out", volumeID: "vol-004" };
      const third = { instanceIDs: [far("third")] };
      await server.app.service.volumeAttach(volume, {}, third);
      assert.equal(await again(), 200, "there is one more");
      await server.app.service.volumeDetach(volume, {}, third);
    }
  });

  it("are shown by the command line", async () => {
    const env = {
      LIBSTORAGE_HOST: `tcp://127.0.0.1:${server.port}`,
      LIBSTORAGE_HOME: server.folder,
    };
    const { stdout, stderr } = await run(BIN, ["export", "ls"], env);
    assert.equal(
      stdout,
      `VOLUME   SERVICE  EXPORTER  HOLDER  SESSIONS              DEVICE
vol-004  out      list      near    logged in (10.0.0.2)  /dev/vol-004
vol-004  out      list      away    -                     /dev/vol-004
`,
      stderr,
    );
  });
});

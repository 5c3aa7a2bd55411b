import assert from "node:assert/strict";
import { it } from "node:test";
import * as v from "valibot";
import type { AttachmentRecord, VolumeRecord } from "../../core/driver.js";
import { NfsConfig } from "./config.js";
import { NfsExporter } from "./index.js";
import type { NfsServer } from "./server.js";

const FOLDER = "/srv/libstorage/fast";

/** Each of its shares is in use. */
const SERVER = {
  kind: "kernel",
  sessions: async (shares) =>
    shares.map(({ volumeID, clients: [first] }) => ({
      volumeID,
      peer: first?.address ?? "",
      state: "used",
    })),
} as Partial<NfsServer> as NfsServer;

function held(id: string, deviceName: string, served = "kernel"): VolumeRecord {
  const attachment = {
    instanceID: { id: "b", driver: "btrfs", service: "" },
    deviceName,
    epoch: 1,
    fields: { exporter: "nfs", clients: "10.1.0.2", access: "rw", served },
  };
  return {
    id,
    source: { kind: "directory", path: `/srv/btrfs/vol/${id}` },
    attachments: [attachment as unknown as AttachmentRecord],
  } as unknown as VolumeRecord;
}

it("a record that was damaged hides no other volume's sessions", async () => {
  const exporter = new NfsExporter(v.parse(NfsConfig, {}), "fast", FOLDER, SERVER);
  const found = await exporter.sessions([
    held("damaged", "nonsense"),
    held("of-ganesha", `10.1.0.1:${FOLDER}/of-ganesha/1`, "ganesha"),
    held("whole", `10.1.0.1:${FOLDER}/whole/1`),
  ]);
  assert.deepEqual(found, [{ volumeID: "whole", peer: "10.1.0.2", state: "used" }]);
});

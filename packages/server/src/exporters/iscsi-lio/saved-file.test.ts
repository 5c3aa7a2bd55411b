import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { openExec } from "../../core/exec.js";
import { openFiles } from "../../core/files.js";
import { SILENT } from "../../core/log.js";
import type { IscsiDoor } from "../iscsi/door.js";
import { SavedFile, merged } from "./saved-file.js";
import type { SavedExport } from "./saved-file.js";

const OWNER = "0123456789";
const FOREIGN = {
  fabric_modules: [{ name: "tcm_fc" }],
  storage_objects: [{ name: "vg:disk", plugin: "block", attributes: { block_size: 4096 } }],
  targets: [{ wwn: "iqn.2003-01.org.linux-iscsi.host:targetd", tpgs: [{ tag: 1, odd: true }] }],
  unknown: 1,
};

function exported(id: string, changes: Partial<IscsiDoor> = {}): SavedExport {
  const door: IscsiDoor = {
    iqn: `iqn.2026-01.io.libstorage:${OWNER}:svc:${id}:1-00000000`,
    lun: 1,
    portals: [],
    initiator: "iqn.2026-01.local.test:b",
    serial: "cb82bdfc8db54e4193ea937e3a428836",
    wwid: "",
    chap: "mutual",
    iser: false,
    ...changes,
  };
  const volume = {
    id,
    sizeBytes: 1024,
    source: { kind: "block", path: `/dev/vg0/${id}` },
  } as VolumeRecord;
  const attachment = {
    instanceID: { id: "b", driver: "d", service: "" },
  } as SavedExport["hold"]["attachment"];
  return {
    hold: { volume, attachment, door },
    backstoreName: `libstorage-${OWNER}-${id}-cb82bdfc`,
    credentials: { user: "u", secret: "s", targetUser: "tu", targetSecret: "ts" },
    listening: [
      { address: "10.0.0.1", port: 3260 },
      { address: "fd00::1", port: 3260 },
    ],
  };
}

describe("the file that targetcli restores from", () => {
  const folder = mkdtempSync(join(tmpdir(), "libstorage-saved-"));
  after(() => rmSync(folder, { recursive: true }));

  it("gets an export in the form of rtslib 2.1", () => {
    assert.deepEqual(merged({}, OWNER, [exported("v1")]), {
      fabric_modules: [],
      storage_objects: [
        {
          dev: "/dev/vg0/v1",
          name: `libstorage-${OWNER}-v1-cb82bdfc`,
          plugin: "block",
          readonly: false,
          write_back: false,
          wwn: "cb82bdfc8db54e4193ea937e3a428836",
        },
      ],
      targets: [
        {
          fabric: "iscsi",
          wwn: `iqn.2026-01.io.libstorage:${OWNER}:svc:v1:1-00000000`,
          tpgs: [
            {
              tag: 1,
              enable: true,
              attributes: {
                authentication: 1,
                cache_dynamic_acls: 0,
                demo_mode_discovery: 0,
                demo_mode_write_protect: 1,
                generate_node_acls: 0,
              },
              parameters: {},
              luns: [
                {
                  index: 1,
                  storage_object: `/backstores/block/libstorage-${OWNER}-v1-cb82bdfc`,
                },
              ],
              node_acls: [
                {
                  node_wwn: "iqn.2026-01.local.test:b",
                  attributes: { authentication: 1 },
                  chap_userid: "u",
                  chap_password: "s",
                  chap_mutual_userid: "tu",
                  chap_mutual_password: "ts",
                  mapped_luns: [{ index: 1, tpg_lun: 1, write_protect: false }],
                },
              ],
              portals: [
                { ip_address: "10.0.0.1", port: 3260, iser: false, offload: false },
                { ip_address: "[fd00::1]", port: 3260, iser: false, offload: false },
              ],
            },
          ],
        },
      ],
    });
  });

  it("keeps what is not ours, and drops what we no longer export", () => {
    const first = merged(FOREIGN, OWNER, [exported("v1"), exported("v2")]);
    const other = merged(first, "9876543210", []);
    assert.deepEqual(other, first, "another server's exports are not ours");
    assert.deepEqual(merged(other, OWNER, []), FOREIGN);
  });

  it("puts the volumes of one target together", () => {
    const iqn = `iqn.2026-01.io.libstorage:${OWNER}:svc:aa`;
    const { targets } = merged({}, OWNER, [
      exported("v1", { iqn }),
      exported("v2", { iqn, lun: 2 }),
    ]) as { targets: { tpgs: { luns: unknown[]; node_acls: { mapped_luns: unknown[] }[] }[] }[] };
    assert.equal(targets.length, 1);
    assert.equal(targets[0]?.tpgs[0]?.luns.length, 2);
    assert.equal(targets[0]?.tpgs[0]?.node_acls.length, 1);
    assert.equal(targets[0]?.tpgs[0]?.node_acls[0]?.mapped_luns.length, 2);
  });

  it("is readable by its owner only, and one that is no JSON is left alone", async () => {
    const path = join(folder, "saveconfig.json");
    const context: OpContext = {
      signal: new AbortController().signal,
      log: SILENT,
      exec: openExec({ log: SILENT }),
      files: openFiles(),
      progress: () => {},
    };
    const file = await SavedFile.open(path, OWNER);
    await file.save(() => [exported("v1")], context);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    writeFileSync(path, '{"storage_objects": [');
    await file.save(() => [], context);
    assert.equal(readFileSync(path, "utf8"), '{"storage_objects": [');
  });
});

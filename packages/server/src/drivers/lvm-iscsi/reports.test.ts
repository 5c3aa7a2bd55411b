import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseStatuses } from "./queue.js";
import { parseLvs, parseVgs } from "./reports.js";

// As LVM 2.03.16 prints them (Debian 12).
const LVS = `  {
      "report": [
          {
              "lv": [
                  {"lv_name":"lvm-000", "lv_uuid":"4ctcaM-3vsb-3DrM-mAxg-H1cS-KG0j-N8KrAT", "vg_uuid":"cSdYUg-pWG5-4uQE-CocG-cmZK-89mk-cAX2Zu", "vg_seqno":"543", "lv_size":"1073741824", "lv_tags":"a=b,libstorage:unwiped", "origin":"", "origin_size":"1073741824", "pool_lv":"", "segtype":"linear", "lv_active":"active", "lv_health_status":"", "lv_snapshot_invalid":"unknown", "data_percent":"", "metadata_percent":"", "lv_metadata_size":"", "zero":"unknown"},
                  {"lv_name":"lvm-000-000", "lv_uuid":"OpVUvH-MZ1G-kRk0-rlzM-NS8e-tYnY-6LnM76", "vg_uuid":"cSdYUg-pWG5-4uQE-CocG-cmZK-89mk-cAX2Zu", "vg_seqno":"543", "lv_size":"1082130432", "lv_tags":"", "origin":"lvm-000", "origin_size":"1073741824", "pool_lv":"", "segtype":"linear", "lv_active":"active", "lv_health_status":"", "lv_snapshot_invalid":"snapshot invalid", "data_percent":"100.00", "metadata_percent":"0.00", "lv_metadata_size":"", "zero":"unknown"},
                  {"lv_name":"pool", "lv_uuid":"D2RE2R-oxzV-ao18-ItZE-hOcW-2SAE-VoELoW", "vg_uuid":"cSdYUg-pWG5-4uQE-CocG-cmZK-89mk-cAX2Zu", "vg_seqno":"543", "lv_size":"214748364800", "lv_tags":"", "origin":"", "origin_size":"", "pool_lv":"", "segtype":"thin-pool", "lv_active":"active", "lv_health_status":"out_of_data", "lv_snapshot_invalid":"unknown", "data_percent":"98.44", "metadata_percent":"11.43", "lv_metadata_size":"104857600", "zero":"zero"},
                  {"lv_name":"thin-000", "lv_uuid":"0QYbSj-CdOd-zgKX-rMde-jXee-4QJt-8IeRXL", "vg_uuid":"cSdYUg-pWG5-4uQE-CocG-cmZK-89mk-cAX2Zu", "vg_seqno":"543", "lv_size":"3221225472", "lv_tags":"one", "origin":"", "origin_size":"", "pool_lv":"pool", "segtype":"thin", "lv_active":"", "lv_health_status":"", "lv_snapshot_invalid":"unknown", "data_percent":"", "metadata_percent":"", "lv_metadata_size":"", "zero":"unknown"}
              ]
          }
      ]
  }
`;

const EMPTY = `  {
      "report": [
          {
              "lv": [
              ]
          }
      ]
  }
`;

const VGS = `  {
      "report": [
          {
              "vg": [
                  {"vg_name":"vg0", "vg_seqno":"543", "vg_extent_size":"4194304", "vg_free":"413109583872", "vg_size":"629141405696", "vg_missing_pv_count":"1", "vg_exported":"", "vg_lock_type":"", "vg_mda_size":"1044480", "vg_mda_free":"517120"}
              ]
          }
      ]
  }
`;

/** What LVM's shell prints after each of four commands: one that is done, two that fail, one report. */
const STATUSES = `  {
      "log": [
          {"log_seq_num":"3", "log_type":"status", "log_context":"shell", "log_object_type":"cmd", "log_object_name":"lvcreate", "log_object_id":"", "log_object_group":"", "log_object_group_id":"", "log_message":"success", "log_errno":"0", "log_ret_code":"1"}
      ]
  }
  {
      "log": [
          {"log_seq_num":"3", "log_type":"status", "log_context":"shell", "log_object_type":"cmd", "log_object_name":"lvcreate", "log_object_id":"", "log_object_group":"", "log_object_group_id":"", "log_message":"failure", "log_errno":"0", "log_ret_code":"5"}
      ]
  }
  {
      "log": [
          {"log_seq_num":"4", "log_type":"status", "log_context":"shell", "log_object_type":"cmd", "log_object_name":"lvchange", "log_object_id":"", "log_object_group":"", "log_object_group_id":"", "log_message":"failure", "log_errno":"0", "log_ret_code":"5"}
      ]
  }
  {
      "report": [
          {
              "lv": [
                  {"lv_name":"q2", "lv_tags":"libstorage:1/2:abc="}
              ]
          }
      ]
      ,
      "log": [
          {"log_seq_num":"3", "log_type":"status", "log_context":"shell", "log_object_type":"cmd", "log_object_name":"lvs", "log_object_id":"", "log_object_group":"", "log_object_group_id":"", "log_message":"success", "log_errno":"0", "log_ret_code":"1"}
      ]
  }

  {
      "log": [
      ]
  }
`;

describe("reports of LVM", () => {
  it("a listing gives bytes, tags and what each one is", () => {
    const [thick, snapshot, pool, thin] = parseLvs(LVS);
    assert.deepEqual(thick?.tags, ["a=b", "libstorage:unwiped"]);
    assert.equal(
      thick?.dmUUID,
      "LVM-cSdYUgpWG54uQECocGcmZK89mkcAX2Zu4ctcaM3vsb3DrMmAxgH1cSKG0jN8KrAT",
    );
    assert.equal(snapshot?.origin, "lvm-000");
    assert.equal(snapshot?.sizeBytes, 1_082_130_432);
    assert.equal(snapshot?.dataBytes, 1_073_741_824);
    assert.equal(snapshot?.isSnapshotInvalid, true);
    assert.equal(thick?.isSnapshotInvalid, false);
    assert.equal(thin?.pool, "pool");
    assert.equal(thin?.isActive, false);
    assert.equal(thin?.state, undefined);
    assert.equal(pool?.health, "out_of_data");
  });

  it("the fill of a pool has its decimals (12.11)", () => {
    const { state } = parseLvs(LVS)[2] ?? {};
    assert.equal(state?.dataPercent, 98.44);
    assert.equal(state?.metadataPercent, 11.43);
    assert.equal(state?.isZeroing, true);
  });

  it("a group without volumes is an empty list", () => {
    assert.deepEqual(parseLvs(EMPTY), []);
  });

  it("a group tells its extents, its room and its missing disks", () => {
    const [group] = parseVgs(VGS);
    assert.equal(group?.extentBytes, 4 * 1024 ** 2);
    assert.equal(group?.missingDisks, 1);
    assert.equal(group?.metadataFreeBytes, 517_120);
  });

  it("the output of another version is refused, and says where it differs", () => {
    const without = LVS.replaceAll('"lv_tags"', '"tags"');
    const refused = { code: "failed-precondition", message: /lv_tags.*lvm version/s };
    assert.throws(() => parseLvs(without), refused);
    assert.throws(() => parseLvs("  LV   VG"), { message: /not JSON/ });
    assert.throws(() => parseLvs(LVS.replace('"1073741824"', '"1.00g"')), { message: /lv_size/ });
  });

  it("a newer version's further columns and logs are no matter", () => {
    const more = LVS.replaceAll('"lv_name"', '"lv_new":"x", "lv_name"');
    assert.equal(parseLvs(more).length, 4);
  });

  it("the shell tells how each command ended, in order", () => {
    assert.deepEqual(parseStatuses(STATUSES), [
      { name: "lvcreate", code: 1 },
      { name: "lvcreate", code: 5 },
      { name: "lvchange", code: 5 },
      { name: "lvs", code: 1 },
    ]);
  });
});

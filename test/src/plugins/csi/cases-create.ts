/** CreateVolume and DeleteVolume. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { World } from "./world.js";
import { blockCap, cap, GIB, unique } from "./world.js";

export function createCases(world: () => World): void {
  const request = (more: object = {}): object => ({
    name: unique("pvc"),
    volumeCapabilities: [world().cap()],
    ...more,
  });

  // ---- what is missing or wrong

  it("CreateVolume without a name is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ name: "" }));
  });

  it("CreateVolume without capabilities is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "CreateVolume", { name: unique("pvc") });
  });

  it("CreateVolume with a capability without access type is INVALID_ARGUMENT", async () => {
    const volumeCapabilities = [{ accessMode: { mode: "SINGLE_NODE_WRITER" } }];
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ volumeCapabilities }));
  });

  it("CreateVolume with a capability without access mode is INVALID_ARGUMENT", async () => {
    await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ volumeCapabilities: [{ mount: {} }] }),
    );
  });

  it("CreateVolume with access mode UNKNOWN is INVALID_ARGUMENT", async () => {
    await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ volumeCapabilities: [cap("UNKNOWN")] }),
    );
  });

  it("CreateVolume with an access mode of a later specification is INVALID_ARGUMENT", async () => {
    const volumeCapabilities = [{ mount: {}, accessMode: { mode: 77 } }];
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ volumeCapabilities }));
  });

  it("CreateVolume with a negative capacity is INVALID_ARGUMENT", async () => {
    await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ capacityRange: { requiredBytes: -1 } }),
    );
  });

  it("CreateVolume with more required than allowed is INVALID_ARGUMENT", async () => {
    const capacityRange = { requiredBytes: 2 * GIB, limitBytes: GIB };
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ capacityRange }));
  });

  it("CreateVolume with a limit below the least size is OUT_OF_RANGE, and says the least", async () => {
    const capacityRange = { requiredBytes: 1000, limitBytes: 2000 };
    assert.match(
      await world().fails("OUT_OF_RANGE", "CreateVolume", request({ capacityRange })),
      /1 GiB/,
    );
  });

  it("CreateVolume beyond all sizes is OUT_OF_RANGE", async () => {
    const capacityRange = { requiredBytes: 2 ** 62 };
    await world().fails("OUT_OF_RANGE", "CreateVolume", request({ capacityRange }));
  });

  it("CreateVolume with a name that is too long is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ name: "n".repeat(129) }));
  });

  it("CreateVolume with a name that has control characters is INVALID_ARGUMENT", async () => {
    for (const name of ["a\u0000b", "a\u0007", "a\u007f", "a\u0085"])
      await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ name }));
  });

  it("CreateVolume with an unknown parameter is INVALID_ARGUMENT, and names the known", async () => {
    const text = await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ parameters: { tpye: "x" } }),
    );
    assert.match(text, /"tpye".*iops.*option\.KEY/);
  });

  it("CreateVolume with a parameter of no use is INVALID_ARGUMENT", async () => {
    for (const parameters of [
      { iops: "many" },
      { encrypted: "perhaps" },
      { "option.csi.name": "x" },
    ])
      await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ parameters }));
  });

  it("CreateVolume with mutable parameters that the service cannot change is INVALID_ARGUMENT", async () => {
    await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ mutableParameters: { iops: "5" } }),
    );
  });

  it("CreateVolume from a source that names none is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ volumeContentSource: {} }));
  });

  it("CreateVolume with an empty topology requirement is INVALID_ARGUMENT", async () => {
    await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ accessibilityRequirements: {} }),
    );
  });

  it("CreateVolume with mount flags that are none is INVALID_ARGUMENT, and does not quote them", async () => {
    const volumeCapabilities = [cap("SINGLE_NODE_WRITER", { mountFlags: ["pass word;rm -rf /"] })];
    const text = await world().fails(
      "INVALID_ARGUMENT",
      "CreateVolume",
      request({ volumeCapabilities }),
    );
    assert.ok(!text.includes("pass"), text);
  });

  it("CreateVolume with a mount group that is none is INVALID_ARGUMENT", async () => {
    const volumeCapabilities = [cap("SINGLE_NODE_WRITER", { volumeMountGroup: "wheel" })];
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ volumeCapabilities }));
  });

  it("CreateVolume as a device goes where volumes are devices, and is INVALID_ARGUMENT elsewhere", async () => {
    if (world().kind.isBlock) await world().create({ volumeCapabilities: [blockCap()] });
    else
      await world().fails(
        "INVALID_ARGUMENT",
        "CreateVolume",
        request({ volumeCapabilities: [blockCap()] }),
      );
  });

  it("CreateVolume is refused when one capability of several cannot be had", async () => {
    const volumeCapabilities = [world().cap(), { mount: {}, accessMode: { mode: 99 } }];
    await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ volumeCapabilities }));
  });

  // ---- what works

  it("CreateVolume without a capacity makes a volume", async () => {
    const volume = await world().create({ capacityRange: undefined });
    assert.ok(volume.volumeId !== "");
    assert.ok(volume.capacityBytes >= 0);
  });

  it("CreateVolume rounds up to whole GiB", async () => {
    const volume = await world().create({ capacityRange: { requiredBytes: GIB + 1 } });
    assert.equal(volume.capacityBytes, 2 * GIB);
  });

  it("CreateVolume with an exact size has that size", async () => {
    const volume = await world().create({
      capacityRange: { requiredBytes: 3 * GIB, limitBytes: 3 * GIB },
    });
    assert.equal(volume.capacityBytes, 3 * GIB);
  });

  it("CreateVolume with a limit only stays below it", async () => {
    const volume = await world().create({ capacityRange: { limitBytes: 5 * GIB } });
    assert.ok(volume.capacityBytes > 0 && volume.capacityBytes <= 5 * GIB);
  });

  it("CreateVolume takes the parameters that orchestrators add", async () => {
    await world().create({
      parameters: { "csi.storage.k8s.io/pvc/name": "claim", "option.note": "x" },
    });
  });

  it("CreateVolume takes a name of 128 bytes", async () => {
    await world().create({ name: unique("n").padEnd(128, "x") });
  });

  it("CreateVolume takes any Unicode name", async () => {
    for (const name of ["ü 你 🚀", "a/../b", "..", ".", "tab\there", "line\nfeed", " ", "a,b;c|d"])
      await world().create({ name: `${name}${unique("")}` });
  });

  it("CreateVolume tells names apart that differ in case only", async () => {
    const name = unique("Case");
    const upper = await world().create({ name: name.toUpperCase() });
    const lower = await world().create({ name: name.toLowerCase() });
    assert.notEqual(upper.volumeId, lower.volumeId);
  });

  it("CreateVolume tells a name apart from one that looks like its hidden form", async () => {
    const plain = await world().create({ name: "Ab" });
    const { entries } = await world().call("ListVolumes");
    assert.ok(entries.length > 0);
    const again = await world().create({ name: "ab-0123456789abcdef" });
    assert.notEqual(plain.volumeId, again.volumeId);
  });

  it("CreateVolume for every access mode of folders, or the ones of devices", async () => {
    const modes = world().kind.isBlock
      ? [
          "SINGLE_NODE_WRITER",
          "SINGLE_NODE_READER_ONLY",
          "MULTI_NODE_READER_ONLY",
          "SINGLE_NODE_SINGLE_WRITER",
          "SINGLE_NODE_MULTI_WRITER",
        ]
      : [
          "SINGLE_NODE_WRITER",
          "SINGLE_NODE_READER_ONLY",
          "MULTI_NODE_READER_ONLY",
          "MULTI_NODE_SINGLE_WRITER",
          "MULTI_NODE_MULTI_WRITER",
          "SINGLE_NODE_SINGLE_WRITER",
          "SINGLE_NODE_MULTI_WRITER",
        ];
    for (const mode of modes) await world().create({ volumeCapabilities: [cap(mode)] });
  });

  it("CreateVolume with a file system for several writing nodes is refused where it would be destroyed", async () => {
    const volumeCapabilities = [cap("MULTI_NODE_MULTI_WRITER")];
    if (world().kind.isBlock)
      await world().fails("INVALID_ARGUMENT", "CreateVolume", request({ volumeCapabilities }));
    else await world().create({ volumeCapabilities });
  });

  // ---- once per name

  it("CreateVolume twice answers the same volume", async () => {
    const name = unique("twice");
    const first = await world().create({ name });
    assert.deepEqual(await world().create({ name }), first);
  });

  it("CreateVolume twice with another size is ALREADY_EXISTS", async () => {
    const name = unique("twice");
    const exact = (size: number): object => ({ requiredBytes: size, limitBytes: size });
    const { volumeId } = await world().create({ name, capacityRange: exact(GIB) });
    const text = await world().fails(
      "ALREADY_EXISTS",
      "CreateVolume",
      request({ name, capacityRange: exact(2 * GIB) }),
    );
    assert.ok(text.includes(volumeId), text);
  });

  it("CreateVolume twice with a range that the volume meets is the same volume", async () => {
    const name = unique("twice");
    const first = await world().create({ name, capacityRange: { requiredBytes: 2 * GIB } });
    const again = await world().create({
      name,
      capacityRange: { requiredBytes: GIB, limitBytes: 3 * GIB },
    });
    assert.equal(again.volumeId, first.volumeId);
  });

  it("CreateVolume twice with other parameters is ALREADY_EXISTS", async () => {
    const name = unique("twice");
    await world().create({ name, parameters: { "option.colour": "red" } });
    await world().fails(
      "ALREADY_EXISTS",
      "CreateVolume",
      request({ name, parameters: { "option.colour": "blue" } }),
    );
  });

  it("CreateVolume twice, for one node and then for many, is ALREADY_EXISTS", async () => {
    const name = unique("twice");
    await world().create({ name });
    await world().fails(
      "ALREADY_EXISTS",
      "CreateVolume",
      request({ name, volumeCapabilities: [cap("MULTI_NODE_READER_ONLY")] }),
    );
  });

  it("CreateVolume after the volume was removed makes a new one", async () => {
    const name = unique("again");
    const { volumeId } = await world().create({ name });
    await world().call("DeleteVolume", { volumeId });
    const again = await world().create({ name });
    assert.notEqual(again.volumeId, volumeId);
  });

  it("CreateVolume with one name by 8 callers at once makes one volume", async () => {
    const name = unique("crowd");
    const before = await world().volumeIDs();
    const results = await Promise.allSettled(
      Array.from({ length: 8 }, () => world().create({ name })),
    );
    const ids = new Set<string>();
    for (const one of results) {
      if (one.status === "fulfilled") ids.add(one.value.volumeId);
      else assert.equal(one.reason.code, "ABORTED", String(one.reason));
    }
    assert.equal(ids.size, 1);
    assert.equal((await world().volumeIDs()).length, before.length + 1);
  });

  // ---- DeleteVolume

  it("DeleteVolume without an id is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "DeleteVolume", {});
  });

  it("DeleteVolume with an id that is too long is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "DeleteVolume", { volumeId: "v".repeat(129) });
  });

  it("DeleteVolume of what is not there succeeds, whatever it is called", async () => {
    for (const volumeId of ["reallyfakevolumeid", "..", ".", "a/b", "a b", "ü", "%2e%2e"])
      assert.deepEqual(await world().call("DeleteVolume", { volumeId }), {});
  });

  it("DeleteVolume twice succeeds", async () => {
    const { volumeId } = await world().create();
    await world().call("DeleteVolume", { volumeId });
    await world().call("DeleteVolume", { volumeId });
    assert.ok(!(await world().volumeIDs()).includes(volumeId));
  });

  it("DeleteVolume takes no id that differs in its case", async () => {
    const { volumeId } = await world().create();
    await world().call("DeleteVolume", { volumeId: volumeId.toUpperCase() });
    assert.ok((await world().volumeIDs()).includes(volumeId));
  });

  it("DeleteVolume of a volume in use is FAILED_PRECONDITION, and names its node", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await world().publishTo(volumeId, world().otherNode("busy-node"));
    assert.match(
      await world().fails("FAILED_PRECONDITION", "DeleteVolume", { volumeId }),
      /busy-node/,
    );
  });

  it("DeleteVolume ignores secrets", async () => {
    const { volumeId } = await world().create();
    await world().call("DeleteVolume", { volumeId, secrets: { password: "hunter2" } });
  });
}

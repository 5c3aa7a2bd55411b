import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  IQN_PREFIX,
  backstoreName,
  checkInitiatorName,
  ownerInBackstore,
  ownerInTarget,
  serialOf,
  volumeTarget,
  wwnOf,
} from "./names.js";
import { ownerOf } from "../server-id.js";

const name = (service: string) => ({
  prefix: "iqn.2026-01.io.libstorage",
  owner: ownerOf("server", service),
  service,
});

describe("names of iSCSI", () => {
  it("a target's name is used once", () => {
    const one = volumeTarget(name("lvm"), "lvm-001", 3);
    assert.match(one, /^iqn\.2026-01\.io\.libstorage:[\da-f]{10}:lvm:lvm-001:3-[\da-f]{8}$/);
    assert.notEqual(volumeTarget(name("lvm"), "lvm-001", 3), one, "even after a lost journal");
  });

  it("two servers, and two services of one, never make the same names", () => {
    assert.notEqual(ownerOf("a", "lvm"), ownerOf("b", "lvm"));
    assert.notEqual(ownerOf("a", "lvm"), ownerOf("a", "lvm2"));
    assert.notEqual(serialOf(ownerOf("a", "lvm"), "v"), serialOf(ownerOf("b", "lvm"), "v"));
    assert.equal(serialOf(ownerOf("a", "lvm"), "v"), serialOf(ownerOf("a", "lvm"), "v"));
  });

  it("are such as targetcli and RFC 7143 take, whatever a volume is called", () => {
    for (const id of ["Vol_1+x", "..", "ä".repeat(200), "a".repeat(300), "a:b/c,d"]) {
      const iqn = volumeTarget(name("my_service"), id, 1);
      // The pattern of rtslib, which refuses blanks and underscores beside.
      assert.match(iqn, /^iqn\.[0-9]{4}-[0-1][0-9]\..*\..*$/);
      assert.match(iqn, /^[a-z\d.:-]{1,223}$/);
      const store = backstoreName("0123456789", id, "0".repeat(32));
      assert.match(store, /^libstorage-[\da-z.-]{1,52}$/);
      assert.equal(ownerInTarget(iqn), name("my_service").owner);
      assert.equal(ownerInBackstore(store), "0123456789");
    }
  });

  it("those of others are known as such", () => {
    for (const other of [
      "iqn.2003-01.org.linux-iscsi.host.x8664:sn.0123456789ab",
      "iqn.2026-01.io.libstorage:disk",
      "eui.0123456789abcdef",
    ])
      assert.equal(ownerInTarget(other), undefined);
    assert.equal(ownerInBackstore("vg:volume"), undefined);
  });

  it("a device's name begins with NAA 6 and has 32 digits", () => {
    assert.equal(
      wwnOf("cb82bdfc8db54e4193ea937e3a428836"),
      "6001405cb82bdfc8db54e4193ea937e3",
      "as Linux 6.1 makes it of that serial number",
    );
  });

  it("names of initiators that the kernel takes but are none are refused", () => {
    for (const good of [
      "iqn.1993-08.org.debian:01:9e3a1c5d2b7f",
      "iqn.1991-05.com.microsoft:host.example.org",
      "eui.02004567a425678d",
      "naa.52004567ba64678d",
    ])
      assert.equal(checkInitiatorName(good, "h"), good);
    for (const bad of [
      "iqn.b",
      "iqn.2026-13.org.example",
      "iqn.2026-01.org,example",
      "iqn.2026-01.org.example:",
      "iqn.2026-01.org.example:a b",
      "iqn.2026-01.örg",
      "../../x",
      "naa.1",
      `iqn.2026-01.org.${"x".repeat(220)}`,
    ])
      assert.throws(() => checkInitiatorName(bad, "h"), /is none; write one/, bad);
    assert.throws(() => checkInitiatorName(undefined, "h"), /install open-iscsi/);
  });

  it("a prefix is a date and a domain", () => {
    assert.match("iqn.2026-01.org.example", IQN_PREFIX);
    for (const bad of ["iqn.2026-01.org", "iqn.2026-1.org.example", "iqn.2026-01.org.example:x"])
      assert.doesNotMatch(bad, IQN_PREFIX);
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Claims } from "./claims.js";
import type { Hold } from "./exporter.js";

function hold(id: string, epoch: number, fields: Record<string, string>): Hold {
  const attachment = { instanceID: { id }, epoch, fields };
  return { volume: { id: "v" }, attachment } as unknown as Hold;
}

const TAKEN = { code: "already-exists" };

describe("claims", () => {
  it("a name and a path are one hold's, until it lets go of them", () => {
    const claims = new Claims();
    const first = hold("a", 1, { export: "n", socket: "/s" });
    claims.claim(first);
    claims.claim(first);
    for (const fields of [{ export: "n" }, { socket: "/s" }, { file: "/s", export: "m" }]) {
      assert.throws(() => claims.needFree(fields), TAKEN);
      const second = hold("b", 2, fields);
      assert.throws(() => claims.claim(second), TAKEN);
      assert.equal(claims.mayTouch(second), false);
      // It never had them.
      claims.release(second);
    }
    claims.needFree({ export: "/s", socket: "n" });
    assert.equal(claims.mayTouch(first), true);
    claims.release(first);
    claims.claim(hold("b", 2, { export: "n", file: "/s" }));
  });

  it("who has one and not the other gets neither", () => {
    const claims = new Claims();
    claims.claim(hold("a", 1, { export: "n" }));
    assert.throws(() => claims.claim(hold("b", 2, { export: "n", socket: "/s" })), TAKEN);
    claims.needFree({ socket: "/s" });
  });

  it("the same holder of a later time is another hold; what names nothing claims nothing", () => {
    const claims = new Claims();
    claims.claim(hold("a", 1, { export: "n" }));
    assert.equal(claims.mayTouch(hold("a", 2, { export: "n" })), false);
    claims.claim(hold("a", 2, { iqn: "n" }));
    claims.claim(hold("b", 3, { iqn: "n" }));
  });
});

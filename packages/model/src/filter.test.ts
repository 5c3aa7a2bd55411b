import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { StorageError } from "./errors.js";
import { parseFilter } from "./filter.js";

const VOLUME = {
  attachments: [
    { deviceName: "/dev/xvda", instanceID: { id: "host-a", driver: "vfs", service: "" } },
    { deviceName: "/dev/xvdb", instanceID: { id: "host-b", driver: "vfs", service: "" } },
  ],
  attachmentState: 2,
  encrypted: true,
  name: "Größe (alt) *",
  size: 10,
  id: "vfs-000",
  type: "",
  fields: { owner: "Ann", "a.b": "dotted", count: "9" },
};

function matches(filter: string): boolean {
  return parseFilter(filter)(VOLUME);
}

describe("a filter", () => {
  for (const [filter, expected] of Object.entries({
    "(size=10)": true,
    "(size=10.0)": true,
    "(size=1)": false,
    "(size=ten)": false,
    "(SIZE>=9)": true,
    "(size>=11)": false,
    "(size<=10)": true,
    "(fields.count<=10)": true,
    "(fields.count>=10)": false,
    "(encrypted=TRUE)": true,
    "(encrypted=false)": false,
    "(iops=*)": false,
    "(!(iops=*))": true,
    "(name=*)": true,
    "(fields=*)": true,
    "(fields.OWNER=ann)": true,
    "(fields.a.b=dotted)": true,
    "(attachments.deviceName=/dev/xvdb)": true,
    "(attachments.instanceID.id=host-c)": false,
    "(name=gr*alt*)": true,
    "(name=*alt\\29*)": true,
    "(name=*\\2a)": true,
    "(name=gr*alt)": false,
    "(name=gr\\c3\\b6\\c3\\9fe*)": true,
    "(name=a*a)": false,
    "(id=vfs-0*0)": true,
    "(id=vfs-00*000)": false,
    "(name~=GROSSE ALT)": false,
    "(name~=große alt)": true,
    "(&)": true,
    "(|)": false,
    "(&(size=10)(|(id=x)(type=*)))": true,
    "( & (size=10) (id=vfs-000) )": true,
    "(id>=vfs-000)": true,
    "(id<=vfs)": false,
    "(toString=*)": false,
    "(__proto__=*)": false,
  }))
    it(`${filter} is ${expected}`, () => assert.equal(matches(filter), expected));

  for (const [filter, inner] of Object.entries({
    "": "filter does not start with an '()'",
    true: "filter does not start with an '()'",
    "name=x": "filter does not start with an '()'",
    "(": "unexpected end of filter",
    "(name=x": "unexpected end of filter",
    "(&(name=x)": "unexpected end of filter",
    "()": "error parsing filter",
    "(name)": "error parsing filter",
    "(name=)": "error parsing filter",
    "(=x)": "error parsing filter",
    "(name=\\zz)": "error parsing filter",
    "(name=\\ff)": "error parsing filter",
    "(!(a=b)(c=d))": "error parsing filter",
    [`${"(!".repeat(5000)}(a=b)${")".repeat(5000)}`]: "error parsing filter",
  }))
    it(`${filter.slice(0, 40)} is refused`, () => {
      const isRight = (error: unknown): boolean =>
        error instanceof StorageError &&
        error.code === "invalid-argument" &&
        error.data["filter"] === filter &&
        error.data["inner"] === inner;
      assert.throws(() => parseFilter(filter), isRight);
    });

  it("names what is left over", () => {
    assert.throws(() => parseFilter("(a=b))"), {
      data: {
        filter: "(a=b))",
        inner: { extra: ")", msg: "finished compiling filter with extra at end" },
      },
    });
  });
});

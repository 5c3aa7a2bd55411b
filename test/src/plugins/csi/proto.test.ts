/** The plugin's protocol file against the specification's numbers: plugin and test client read the same file. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { loadServices } from "@libstorage/client/csi";
import { loadSync } from "@grpc/proto-loader";
import { ENUMS, MESSAGES, RPCS, STREAMS } from "./specification.js";

interface Field {
  readonly name: string;
  readonly number: number;
  readonly label: string;
  readonly type: string;
  readonly typeName: string;
}

interface EnumType {
  readonly name: string;
  readonly value: readonly { readonly name: string; readonly number: number }[];
}

interface MessageType {
  readonly name: string;
  readonly field: readonly Field[];
  readonly nestedType: readonly MessageType[];
  readonly enumType: readonly EnumType[];
  readonly options: { readonly mapEntry?: boolean } | null;
}

const FILE = fileURLToPath(new URL("../../../../packages/client/proto/csi.proto", import.meta.url));

const isMap = ({ options }: MessageType): boolean => options?.mapEntry === true;

function typeOf({ type, typeName, label }: Field, maps: ReadonlySet<string>): string {
  if (maps.has(typeName)) return "map";
  const plain = typeName === "" ? type.replace("TYPE_", "").toLowerCase() : typeName;
  return label === "LABEL_REPEATED" ? `${plain}[]` : plain;
}

function textOf({ field, nestedType }: MessageType): string {
  const maps = new Set(nestedType.filter(isMap).map(({ name }) => name));
  const all = field.map((one) => `${one.name}=${one.number}:${typeOf(one, maps)}`);
  return all.join(" ");
}

function enumText({ value }: EnumType): string {
  value.forEach(({ name, number }, index) => assert.equal(number, index, name));
  return value.map(({ name }) => name).join(" ");
}

/** All of the file by their names in it. */
function read(): { messages: Record<string, string>; enums: Record<string, string> } {
  const messages: Record<string, string> = {};
  const enums: Record<string, string> = {};
  const add = (message: MessageType, prefix: string): void => {
    const name = `${prefix}${message.name}`;
    messages[name] = textOf(message);
    for (const one of message.enumType) enums[`${name}.${one.name}`] = enumText(one);
    for (const one of message.nestedType) if (!isMap(one)) add(one, `${name}.`);
  };
  for (const [name, definition] of Object.entries(loadSync(FILE, { keepCase: true }))) {
    if (!name.startsWith("csi.v1.") || !("type" in definition)) continue;
    const type = definition.type as unknown as MessageType | EnumType;
    if ("value" in type) enums[type.name] = enumText(type);
    else add(type, "");
  }
  return { messages, enums };
}

describe("the protocol of the CSI plugin", () => {
  it("has the specification's five services and 32 calls, by their paths on the wire", () => {
    let count = 0;
    const services = loadServices();
    assert.deepEqual(Object.keys(services), Object.keys(RPCS));
    for (const [service, calls] of Object.entries(services)) {
      const named = RPCS[service as keyof typeof RPCS].split(" ");
      assert.deepEqual(Object.keys(calls), named);
      count += named.length;
      for (const [name, call] of Object.entries(calls)) {
        const { path, requestStream, responseStream } = call;
        assert.equal(path, `/csi.v1.${service}/${name}`);
        assert.equal(requestStream, false);
        assert.equal(responseStream, STREAMS.includes(name), name);
        const types = call as unknown as Record<string, { type: MessageType }>;
        assert.equal(types["requestType"]?.type.name, `${name}Request`);
        assert.equal(types["responseType"]?.type.name, `${name}Response`);
      }
    }
    assert.equal(count, 32);
  });

  it("has the specification's messages, with their fields' numbers and types", () => {
    assert.deepEqual(read().messages, MESSAGES);
  });

  it("has the specification's enumerations, with their values' numbers", () => {
    assert.deepEqual(read().enums, ENUMS);
  });
});

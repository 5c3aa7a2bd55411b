/** The text of the `Libstorage-Instanceid` header, section 4.1 of the contract. */
import { StorageError } from "./errors.js";
import { MAX_JSON_DEPTH, isDeeperThan } from "./json-depth.js";
import type { Fields, InstanceID } from "./types.js";

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

function invalid(value: string, why: string): StorageError {
  return new StorageError("invalid-argument", `invalid InstanceID: ${why}`, { value });
}

/**
 * Reads `DRIVER[:SERVICE]=ID[,FIELDS[,METADATA]]`.
 * @throws {StorageError} `invalid-argument`, with the text in `data.value`
 */
export function parseInstanceID(text: string): InstanceID {
  const equals = text.indexOf("=");
  if (equals < 1) throw invalid(text, "the form is DRIVER[:SERVICE]=ID[,FIELDS[,METADATA]]");
  const [driver = "", service = "", ...rest] = text.slice(0, equals).split(":");
  if (driver.trim() === "" || rest.length > 0) throw invalid(text, "the driver is missing");
  const value = text.slice(equals + 1);
  const [id = "", fieldsText = "", ...metadataParts] = value.split(",");
  const fields = parseFields(text, fieldsText);
  const metadata = parseMetadata(text, metadataParts.join(","));
  return {
    id,
    driver: driver.trim(),
    service: service.trim(),
    ...(Object.keys(fields).length > 0 && { fields }),
    ...(metadata !== undefined && { metadata }),
  };
}

function parseFields(text: string, query: string): Fields {
  const fields: Fields = {};
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const [key, value] = equals < 0 ? [part, ""] : [part.slice(0, equals), part.slice(equals + 1)];
    const name = unescape(text, key);
    if (!Object.hasOwn(fields, name)) defineField(fields, name, unescape(text, value));
  }
  return fields;
}

/** `__proto__` is a name like any other. */
function defineField(fields: Fields, name: string, value: string): void {
  Object.defineProperty(fields, name, {
    value,
    enumerable: true,
    writable: true,
    configurable: true,
  });
}

function unescape(text: string, part: string): string {
  try {
    return decodeURIComponent(part.replaceAll("+", " "));
  } catch {
    throw invalid(text, `invalid URL escape in "${part}"`);
  }
}

function parseMetadata(text: string, base64: string): unknown {
  if (base64 === "") return undefined;
  if (!BASE64.test(base64)) throw invalid(text, "the metadata is not padded base64");
  let metadata: unknown;
  try {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    metadata = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw invalid(text, "the metadata is not base64 of JSON");
  }
  if (isDeeperThan(metadata, MAX_JSON_DEPTH))
    throw invalid(text, `the metadata is nested deeper than ${MAX_JSON_DEPTH} levels`);
  return metadata;
}

function escape(text: string): string {
  return encodeURIComponent(text).replaceAll("%20", "+");
}

/** The header text that `parseInstanceID` reads back as the same value. */
export function formatInstanceID(instanceID: InstanceID): string {
  const { id, driver, service, fields = {}, metadata } = instanceID;
  const head = `${driver}${service === "" ? "" : `:${service}`}=${id}`;
  const query = Object.keys(fields)
    .toSorted()
    .map((key) => `${escape(key)}=${escape(fields[key] ?? "")}`)
    .join("&");
  if (metadata === undefined) return query === "" ? head : `${head},${query}`;
  const bytes = new TextEncoder().encode(JSON.stringify(metadata));
  return `${head},${query},${btoa(String.fromCharCode(...bytes))}`;
}

/** Whether two ids name the same instance: drivers and services apart, ids compare without case. */
export function isSameInstance(a: InstanceID, b: InstanceID): boolean {
  return a.id.toLowerCase() === b.id.toLowerCase();
}

/**
 * Which of the sent ids applies to a service: one that names the service wins over one for its driver;
 * of two alike the later wins.
 */
export function instanceIDFor(
  ids: readonly InstanceID[],
  service: string,
  driver: string,
): InstanceID | undefined {
  const ofService = ids.findLast((id) => id.service.toLowerCase() === service.toLowerCase());
  return (
    ofService ??
    ids.findLast((id) => id.service === "" && id.driver.toLowerCase() === driver.toLowerCase())
  );
}

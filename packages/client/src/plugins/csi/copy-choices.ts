/**
 * What a class says of a volume that is made as a copy. A copy is as its source; what the service can change of a
 * volume is changed afterwards, and what it cannot has to be so already: nobody shall get a volume that is less,
 * such as not encrypted, than what was asked for.
 */
import type { ServiceInfo, Volume } from "@libstorage/model";
import { mutableIn } from "./capabilities.js";
import type { readParameters } from "./parameters.js";
import { invalid } from "./status.js";
import type { Choices } from "./volume-facts.js";

type Asked = Pick<
  ReturnType<typeof readParameters>,
  "type" | "iops" | "availabilityZone" | "encrypted"
>;

/**
 * @returns what has to be changed once the copy is there
 * @throws {CsiError} INVALID_ARGUMENT for what is otherwise at the source and cannot be changed, all of it named
 */
export function choicesForCopy(source: Volume, asked: Asked, info: ServiceInfo): Choices {
  const { type, iops = 0, availabilityZone = "", encrypted = false } = source;
  const compared = {
    type: [asked.type, type],
    iops: [asked.iops, iops],
    zone: [asked.availabilityZone, availabilityZone],
    encrypted: [asked.encrypted, encrypted],
  } as const;
  const mutable = mutableIn(info);
  // That it is still to be done stands in the volume's fields, until it is done.
  const canChange = (name: string): boolean => mutable.includes("fields") && mutable.includes(name);
  const differs = Object.entries(compared).filter(([, [want, has]]) => (want ?? has) !== has);
  const fixed = differs.filter(([name]) => !canChange(name));
  if (fixed.length > 0) {
    const words = fixed.map(
      ([name, [want, has]]) => `${name} ${JSON.stringify(has)} and not ${JSON.stringify(want)}`,
    );
    throw invalid(
      `a copy is as its source, and volume ${source.id} has ${words.join(", ")}; service ${info.name} (driver ${info.driver.name}) cannot change that: leave the parameter out, or copy the data into a new volume`,
    );
  }
  const has = (name: string): boolean => differs.some(([one]) => one === name);
  return {
    ...(has("type") && asked.type !== undefined && { type: asked.type }),
    ...(has("iops") && asked.iops !== undefined && { iops: asked.iops }),
  };
}

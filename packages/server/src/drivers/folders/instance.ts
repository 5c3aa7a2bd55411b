/** What hosts are called that use folders: a client without an id of its own sends its host's name. */
import { StorageError } from "@libstorage/model";
import type { Instance, InstanceID } from "@libstorage/model";

/** @throws {StorageError} `invalid-argument` for one with neither */
export function instanceByHostName(id: InstanceID, name: string): Instance {
  if (id.id !== "") return { instanceID: id, name, providerName: "" };
  if (typeof id.metadata === "string" && id.metadata !== "")
    return {
      instanceID: { id: id.metadata, driver: id.driver, service: "" },
      name,
      providerName: "",
    };
  throw new StorageError(
    "invalid-argument",
    "the instance ID is empty and its metadata is no host name",
  );
}

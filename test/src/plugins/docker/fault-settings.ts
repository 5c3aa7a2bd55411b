/** How the plugins of the fault run are set: they wait for nobody, and take what another host has. */
export const FAULT_SETTINGS = {
  "docker.serverWait": "0",
  "libstorage.integration.volume.operations.mount.preempt": "true",
};

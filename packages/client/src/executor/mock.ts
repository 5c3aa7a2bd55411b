/** The mock executor, section 19 of the contract: answers as of a host with four devices, none of which is real. */
import type { Executor } from "./executor.js";

const NAME = { driver: "mock", service: "" } as const;

export function openMock(): Executor {
  return {
    driver: "mock",
    async instanceID() {
      return {
        id: "12345",
        ...NAME,
        metadata: { min: 0, max: 10, rad: "cool", totally: "tubular" },
      };
    },
    likelyID: () => ({ id: "12345", ...NAME }),
    async nextDevice() {
      return "/dev/xvde";
    },
    async localDevices() {
      return {
        driver: "mock",
        deviceMap: {
          "/dev/xvda": "/var/log",
          "/dev/xvdb": "/home",
          "/dev/xvdc": "/net/share",
          "/dev/xvdd": "/var/lib/backup",
        },
      };
    },
    waits: true,
  };
}

/** The paths of a log in a test folder; no test framework, so that child processes can use it. */
import { join } from 'node:path'
import { type OpenedLevelLog, type OpenLevelLogOptions, openLevelLog } from '../../src/log/level-open.ts'

export const BOOT = new Uint8Array(16).fill(1)
export const OTHER_BOOT = new Uint8Array(16).fill(2)

export function optionsIn(root: string, more: Partial<OpenLevelLogOptions> = {}): OpenLevelLogOptions {
  return {
    folder: join(root, 'log'),
    headFile: join(root, 'head'),
    asideFolder: join(root, 'aside'),
    ownerFile: join(root, 'owner.json'),
    bootId: BOOT,
    createIfMissing: true,
    repackEvery: Number.POSITIVE_INFINITY,
    ...more,
  }
}

export function openIn(root: string, more: Partial<OpenLevelLogOptions> = {}): Promise<OpenedLevelLog> {
  return openLevelLog(optionsIn(root, more))
}

import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { createS3Store, type S3Options, type S3Store } from '../../parent/objects/s3.ts';
import type { Radosgw } from './radosgw.ts';

let bucketCount = 0;

export function s3Options(server: Radosgw, bucket: string): S3Options {
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const credentials = { accessKeyId, secretAccessKey };
  return { bucket, region: 'us-east-1', endpoint, forcePathStyle: true, credentials };
}

/** A new, empty bucket of the server. */
export async function createBucket(server: Radosgw): Promise<string> {
  bucketCount += 1;
  const bucket = `bucket-${process.pid}-${bucketCount}`;
  const { endpoint, accessKeyId, secretAccessKey } = server;
  const credentials = { accessKeyId, secretAccessKey };
  const client = new S3Client({ region: 'us-east-1', endpoint, credentials, forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: bucket }));
  client.destroy();
  return bucket;
}

/** A store over a new, empty bucket. */
export async function openBucketStore(server: Radosgw, options: Partial<S3Options> = {}): Promise<S3Store> {
  return createS3Store({ ...s3Options(server, await createBucket(server)), ...options });
}

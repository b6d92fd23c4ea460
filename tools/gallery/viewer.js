// Turns points and meshes with the mouse, nearest pixels by a depth buffer. Coordinates: x right, y down, z forward.
"use strict";
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const light = [-0.3, -0.51, -0.81];  // of length 1, from the model to the light

for (const canvas of document.querySelectorAll("canvas.space")) {
  const places = new Int16Array(decode(canvas.dataset.places).buffer);
  const shades = decode(canvas.dataset.shades);
  const corners = new Uint32Array(decode(canvas.dataset.corners).buffer);
  const count = places.length / 3;
  const ofFaces = new Set(corners);
  const loose = Array.from({ length: count }, (_, k) => k).filter((k) => !ofFaces.has(k));
  const dot = Math.max(4.4, 180 / Math.sqrt(loose.length));  // pixels, larger where points are few
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const nearest = new Float32Array(width * height);
  // Turned, then in perspective: pixels, and the inverse of the distance to the eye, which is linear across a face.
  const turned = new Float32Array(3 * count);
  const across = new Float32Array(count), down = new Float32Array(count), near = new Float32Array(count);
  let yaw = 0.4, pitch = 0.2, zoom = 1;

  const colour = (k, shade) =>
    0xff000000 | ((shade * shades[3 * k + 2]) << 16) | ((shade * shades[3 * k + 1]) << 8) | (shade * shades[3 * k]);

  const project = () => {
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const scale = zoom * 0.36 * height;
    for (let k = 0; k < count; k++) {
      const x = places[3 * k] / 16383, y = places[3 * k + 1] / 16383, z = places[3 * k + 2] / 16383;
      const back = cy * z - sy * x;
      turned[3 * k] = cy * x + sy * z;
      turned[3 * k + 1] = cp * y + sp * back;
      turned[3 * k + 2] = cp * back - sp * y;
      near[k] = 3 / (3 + turned[3 * k + 2]);
      across[k] = width / 2 + scale * near[k] * turned[3 * k];
      down[k] = height / 2 + scale * near[k] * turned[3 * k + 1];
    }
  };

  const lit = (a, b, c) => {
    const ux = turned[3 * b] - turned[3 * a], vx = turned[3 * c] - turned[3 * a];
    const uy = turned[3 * b + 1] - turned[3 * a + 1], vy = turned[3 * c + 1] - turned[3 * a + 1];
    const uz = turned[3 * b + 2] - turned[3 * a + 2], vz = turned[3 * c + 2] - turned[3 * a + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    const towards = (x * light[0] + y * light[1] + z * light[2]) / (Math.sqrt(x * x + y * y + z * z) || 1);
    return 0.35 + 0.65 * Math.max(0, z > 0 ? -towards : towards);  // of the side that is seen
  };

  const drawFace = (a, b, c) => {
    const ax = across[a], ay = down[a], ux = across[b] - ax, uy = down[b] - ay, vx = across[c] - ax, vy = down[c] - ay;
    const area = ux * vy - uy * vx, toB = near[b] - near[a], toC = near[c] - near[a];
    const fill = colour(a, lit(a, b, c));
    const left = Math.max(0, Math.ceil(ax + Math.min(0, ux, vx))), top = Math.max(0, Math.ceil(ay + Math.min(0, uy, vy)));
    const right = Math.min(width - 1, ax + Math.max(0, ux, vx)), bottom = Math.min(height - 1, ay + Math.max(0, uy, vy));
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const v = ((x - ax) * vy - (y - ay) * vx) / area, w = (ux * (y - ay) - uy * (x - ax)) / area;
        const here = near[a] + v * toB + w * toC;
        if (v >= 0 && w >= 0 && v + w <= 1 && here > nearest[y * width + x]) {
          nearest[y * width + x] = here;
          pixels[y * width + x] = fill;
        }
      }
    }
  };

  const drawPoint = (k) => {
    const size = Math.max(2, dot * zoom * near[k]), fill = colour(k, 1);
    const here = 1.005 * near[k];  // so that points on a face are seen
    const right = Math.min(width, across[k] + size), bottom = Math.min(height, down[k] + size);
    for (let y = Math.max(0, Math.ceil(down[k])); y < bottom; y++) {
      for (let x = Math.max(0, Math.ceil(across[k])); x < right; x++) {
        if (here > nearest[y * width + x]) {
          nearest[y * width + x] = here;
          pixels[y * width + x] = fill;
        }
      }
    }
  };

  const draw = () => {
    project();
    pixels.fill(0xff111111);
    nearest.fill(0);
    for (let f = 0; f < corners.length; f += 3) drawFace(corners[f], corners[f + 1], corners[f + 2]);
    loose.forEach(drawPoint);
    context.putImageData(image, 0, 0);
  };

  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    yaw += event.movementX / 150;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + event.movementY / 150));
    redraw();
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom *= Math.exp(-event.deltaY / 800);
    redraw();
  }, { passive: false });
  draw();
}

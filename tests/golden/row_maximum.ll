define void @k5de33701c12c2764.0(ptr %args, i64 %begin, i64 %end) nounwind {
entry:
  %v9 = alloca [8 x float], align 64
  %v10 = alloca [8 x float], align 64
  %v33 = alloca [8 x float], align 64
  %v1 = load ptr, ptr %args, align 8
  %v2 = getelementptr inbounds ptr, ptr %args, i64 1
  %v3 = load ptr, ptr %v2, align 8
  %v6 = icmp slt i64 %begin, %end
  br i1 %v6, label %p.4, label %p.end.5
p.4:
  %v7 = phi i64 [ %begin, %entry ], [ %v85, %p.4 ]
  %v8 = getelementptr inbounds float, ptr %v3, i64 %v7
  store float 0xFFF0000000000000, ptr %v8, align 4
  store <8 x float> splat (float 0xFFF0000000000000), ptr %v9, align 64
  store <8 x float> splat (float 0xFFF0000000000000), ptr %v10, align 64
  %v11 = mul nsw i64 %v7, 21
  %v12 = getelementptr inbounds float, ptr %v1, i64 %v11
  %v13 = load <8 x float>, ptr %v12, align 4
  %v14 = load <8 x float>, ptr %v9, align 64
  %v15 = fcmp ogt <8 x float> %v13, %v14
  %v16 = select <8 x i1> %v15, <8 x float> %v13, <8 x float> %v14
  %v17 = bitcast <8 x float> %v16 to <8 x i32>
  %v18 = fcmp uno <8 x float> %v13, %v13
  %v19 = sext <8 x i1> %v18 to <8 x i32>
  %v20 = or <8 x i32> %v17, %v19
  %v21 = bitcast <8 x i32> %v20 to <8 x float>
  store <8 x float> %v21, ptr %v9, align 64
  %v22 = getelementptr float, ptr %v1, i64 %v11
  %v23 = getelementptr float, ptr %v22, i64 8
  %v24 = load <8 x float>, ptr %v23, align 4
  %v25 = load <8 x float>, ptr %v10, align 64
  %v26 = fcmp ogt <8 x float> %v24, %v25
  %v27 = select <8 x i1> %v26, <8 x float> %v24, <8 x float> %v25
  %v28 = bitcast <8 x float> %v27 to <8 x i32>
  %v29 = fcmp uno <8 x float> %v24, %v24
  %v30 = sext <8 x i1> %v29 to <8 x i32>
  %v31 = or <8 x i32> %v28, %v30
  %v32 = bitcast <8 x i32> %v31 to <8 x float>
  store <8 x float> %v32, ptr %v10, align 64
  store <5 x float> splat (float 0xFFF0000000000000), ptr %v33, align 64
  %v34 = getelementptr float, ptr %v22, i64 16
  %v35 = load <5 x float>, ptr %v34, align 4
  %v36 = load <5 x float>, ptr %v33, align 64
  %v37 = fcmp ogt <5 x float> %v35, %v36
  %v38 = select <5 x i1> %v37, <5 x float> %v35, <5 x float> %v36
  %v39 = bitcast <5 x float> %v38 to <5 x i32>
  %v40 = fcmp uno <5 x float> %v35, %v35
  %v41 = sext <5 x i1> %v40 to <5 x i32>
  %v42 = or <5 x i32> %v39, %v41
  %v43 = bitcast <5 x i32> %v42 to <5 x float>
  store <5 x float> %v43, ptr %v33, align 64
  %v44 = load <8 x float>, ptr %v9, align 64
  %v45 = load <8 x float>, ptr %v10, align 64
  %v46 = load <5 x float>, ptr %v33, align 64
  %v47 = shufflevector <5 x float> %v46, <5 x float> splat (float 0xFFF0000000000000), <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 5, i32 5>
  %v48 = fcmp ogt <8 x float> %v45, %v44
  %v49 = select <8 x i1> %v48, <8 x float> %v45, <8 x float> %v44
  %v50 = bitcast <8 x float> %v49 to <8 x i32>
  %v51 = fcmp uno <8 x float> %v45, %v45
  %v52 = sext <8 x i1> %v51 to <8 x i32>
  %v53 = or <8 x i32> %v50, %v52
  %v54 = bitcast <8 x i32> %v53 to <8 x float>
  %v55 = fcmp ogt <8 x float> %v47, %v54
  %v56 = select <8 x i1> %v55, <8 x float> %v47, <8 x float> %v54
  %v57 = bitcast <8 x float> %v56 to <8 x i32>
  %v58 = fcmp uno <8 x float> %v47, %v47
  %v59 = sext <8 x i1> %v58 to <8 x i32>
  %v60 = or <8 x i32> %v57, %v59
  %v61 = bitcast <8 x i32> %v60 to <8 x float>
  %v62 = shufflevector <8 x float> %v61, <8 x float> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %v63 = shufflevector <8 x float> %v61, <8 x float> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %v64 = fcmp ogt <4 x float> %v63, %v62
  %v65 = select <4 x i1> %v64, <4 x float> %v63, <4 x float> %v62
  %v66 = bitcast <4 x float> %v65 to <4 x i32>
  %v67 = fcmp uno <4 x float> %v63, %v63
  %v68 = sext <4 x i1> %v67 to <4 x i32>
  %v69 = or <4 x i32> %v66, %v68
  %v70 = bitcast <4 x i32> %v69 to <4 x float>
  %v71 = shufflevector <4 x float> %v70, <4 x float> poison, <2 x i32> <i32 0, i32 1>
  %v72 = shufflevector <4 x float> %v70, <4 x float> poison, <2 x i32> <i32 2, i32 3>
  %v73 = fcmp ogt <2 x float> %v72, %v71
  %v74 = select <2 x i1> %v73, <2 x float> %v72, <2 x float> %v71
  %v75 = bitcast <2 x float> %v74 to <2 x i32>
  %v76 = fcmp uno <2 x float> %v72, %v72
  %v77 = sext <2 x i1> %v76 to <2 x i32>
  %v78 = or <2 x i32> %v75, %v77
  %v79 = bitcast <2 x i32> %v78 to <2 x float>
  %v80 = extractelement <2 x float> %v79, i64 0
  %v81 = extractelement <2 x float> %v79, i64 1
  %v82 = call nsz float @llvm.maximum.f32(float %v81, float %v80)
  %v83 = load float, ptr %v8, align 4
  %v84 = call nsz float @llvm.maximum.f32(float %v82, float %v83)
  store float %v84, ptr %v8, align 4
  %v85 = add nsw i64 %v7, 1
  %v86 = icmp slt i64 %v85, %end
  br i1 %v86, label %p.4, label %p.end.5
p.end.5:
  ret void
}

declare float @llvm.maximum.f32(float, float)
